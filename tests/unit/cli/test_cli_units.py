"""The systemd units and the files of variables that go with them."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm_cli.commands.agent import DAEMON as AGENT
from pyswarm_cli.commands.daemon import run_command
from pyswarm_cli.commands.manager import DAEMON as MANAGER
from pyswarm_core.errors import InvalidInput
from pyswarm_core.membership import configs, daemons, units
from pyswarm_core.membership.member import Member, check_data_dir

MEMBER = Member("n1", "manager", "10.0.0.1", "host-1", ("10.0.0.1:2377",), ("10.0.0.1:2379",))

WORKER = Member("n2", "worker", "10.0.0.2", "host-2", ("10.0.0.1:2377",))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze: install the package systemd")
def test_systemd_takes_them(tmp_path: Path) -> None:
    for name, text in units.units(MEMBER, "/bin/true").items():
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
    agent = units.units(WORKER, "/bin/true")[units.name("agent")]
    for line in ("KillMode=process", "Delegate=yes", "Restart=always", "WatchdogSec=30s", "Type=notify"):
        assert f"\n{line}\n" in agent
    # each of these would give it a mount namespace, or be inherited by containers
    for word in ("Protect", "Private", "ReadWritePaths", "NoNewPrivileges", "SystemCallFilter", "CapabilityBounding"):
        assert f"\n{word}" not in agent


def test_a_worker_has_an_agent_alone() -> None:
    assert list(units.units(WORKER, "/bin/true")) == ["pyswarm-agent.service"]
    assert list(configs.files(WORKER, cluster="", initial="", initial_state="")) == ["agent.env"]


def test_every_variable_is_a_setting() -> None:
    files = configs.files(
        MEMBER, cluster="c", initial="n1=https://10.0.0.1:2380", initial_state="new", address_pool="10.64.0.0/12"
    )
    for daemon, name in ((AGENT, "agent.env"), (MANAGER, "manager.env")):
        known = {option.envvar for option in run_command(daemon).params if hasattr(option, "envvar")}
        for line in files[name].splitlines():
            if not line.startswith("#"):
                assert line.partition("=")[0] in known, line
                assert len(shlex.split(line)) == 1, "a shell reads it as systemd does"


def test_another_data_folder() -> None:
    member = dataclasses.replace(MEMBER, data_dir="/srv/pyswarm")
    made = units.units(member, "/bin/true")
    assert all("\nRequiresMountsFor=/srv/pyswarm\n" in text for text in made.values())
    assert "\nReadWritePaths=/srv/pyswarm/etcd\n" in made[units.name("etcd")]
    assert "\nReadWritePaths=/srv/pyswarm/manager " in made[units.name("manager")]
    files = configs.files(member, cluster="c", initial="i", initial_state="new")
    assert "/var/lib/pyswarm" not in "".join([*made.values(), *files.values()])


@pytest.mark.parametrize("path", ["srv", "/", "/home/x", "/tmp", "/srv/a b", "/srv/$x", "/srv/../tmp", "/run/x", "/a/"])
def test_what_is_no_place_for_data(path: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the data folder"):
        check_data_dir(path)
    assert check_data_dir("/srv/pyswarm-1.d") == "/srv/pyswarm-1.d"


def test_units_call_pyswarm_by_the_link_that_an_upgrade_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(sys.executable).with_name("pyswarm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert daemons.pyswarm_command() == str(script)
    (tmp_path / "pyswarm").symlink_to(script)
    assert daemons.pyswarm_command() == str(tmp_path / "pyswarm")
    (tmp_path / "pyswarm").unlink()
    (tmp_path / "pyswarm").symlink_to("/bin/true")
    assert daemons.pyswarm_command() == str(script), "another program of that name"
