"""The systemd units and the files of variables that go with them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pyswarm_cli.bootstrap import configs, units
from pyswarm_cli.bootstrap.member import Member
from pyswarm_cli.commands.agent import DAEMON as AGENT
from pyswarm_cli.commands.daemon import run_command
from pyswarm_cli.commands.manager import DAEMON as MANAGER

MEMBER = Member("n1", "manager", "10.0.0.1", "host-1", ("10.0.0.1:2377",), ("10.0.0.1:2379",))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze: install the package systemd")
def test_systemd_takes_them(tmp_path: Path) -> None:
    for name, text in units.units(MEMBER.daemons, "/bin/true", "/bin/true").items():
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", str(tmp_path / name)],
            capture_output=True,
            text=True,
        )
        complaints = [line for line in done.stderr.splitlines() if "pyswarm-" in line]
        assert not complaints, complaints
        assert done.returncode == 0, done.stderr


def test_stopping_the_agent_leaves_containers() -> None:
    agent = units.units(["agent"], "/bin/true", "")[units.name("agent")]
    for line in ("KillMode=process", "Delegate=yes", "Restart=always", "WatchdogSec=30s", "Type=notify"):
        assert f"\n{line}\n" in agent
    # each of these would give it a mount namespace, or be inherited by containers
    for word in ("Protect", "Private", "ReadWritePaths", "NoNewPrivileges", "SystemCallFilter", "CapabilityBounding"):
        assert f"\n{word}" not in agent


def test_a_worker_has_an_agent_alone() -> None:
    worker = Member("n2", "worker", "10.0.0.2", "host-2", ("10.0.0.1:2377",))
    assert list(units.units(worker.daemons, "/bin/true", "")) == ["pyswarm-agent.service"]
    assert list(configs.files(worker, cluster="", initial="", initial_state="")) == ["agent.env"]


def test_every_variable_is_a_setting() -> None:
    files = configs.files(MEMBER, cluster="c", initial="n1=https://10.0.0.1:2380", initial_state="new")
    for daemon, name in ((AGENT, "agent.env"), (MANAGER, "manager.env")):
        known = {option.envvar for option in run_command(daemon).params if hasattr(option, "envvar")}
        for line in files[name].splitlines():
            if not line.startswith("#"):
                assert line.partition("=")[0] in known, line
                assert len(shlex.split(line)) == 1, "a shell reads it as systemd does"
