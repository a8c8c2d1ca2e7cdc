"""`manager run`, `agent run` and `system check`."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any

import click
import pytest
from tests.support.cli import Run

from pyswarm_cli.commands import agent, manager
from pyswarm_cli.commands.daemon import Daemon

DAEMONS = {"manager": manager.DAEMON, "agent": agent.DAEMON}
COMMANDS: dict[str, click.Command] = {
    "manager": manager.manager.commands["run"],
    "agent": agent.agent.commands["run"],
}


@pytest.mark.parametrize("name", DAEMONS)
def test_every_setting_has_a_flag_with_help(name: str) -> None:
    daemon: Daemon = DAEMONS[name]
    settings = importlib.import_module(f"{daemon.package}.settings").Settings
    flags = {parameter.name for parameter in COMMANDS[name].params}
    fields = {field.name for field in dataclasses.fields(settings)}
    assert flags == fields
    assert set(daemon.flags) == fields, "each one is explained"


def parsed(name: str, *args: str, **environ: str) -> dict[str, Any]:
    """What click hands over, without running the daemon."""
    context = COMMANDS[name].make_context("run", list(args))
    return {key: value for key, value in context.params.items() if value not in (None, ())}


def test_values_are_read_by_their_fields_kind() -> None:
    found = parsed(
        *("manager", "--id", "n1", "--advertise", "10.0.0.1:2377", "--etcd", "https://a:2379,https://b:2379"),
        *("--tls-dir", "/t", "--lease-ttl", "7", "--node-down-after", "1m", "--heartbeat-period", "2.5"),
        *("--metrics-addr", "", "--log-level", "DEBUG"),
    )
    assert found["etcd_endpoints"] == ("https://a:2379", "https://b:2379")
    assert str(found["tls_dir"]) == "/t"
    assert (found["lease_ttl"], found["node_down_after"], found["heartbeat_period"]) == (7, 60.0, 2.5)
    assert found["metrics_addr"] == "" and found["log_level"] == "debug"
    found = parsed("agent", "--managers", "a:1,b:2", "--label", "zone=a", "--label", "disk=ssd", "--hostname", "h")
    assert found["managers"] == ("a:1", "b:2")
    assert found["labels"] == {"zone": "a", "disk": "ssd"}


def test_the_environment_sets_what_flags_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSWARM_AGENT_MANAGERS", "a:1,b:2")
    monkeypatch.setenv("PYSWARM_AGENT_LOG_LEVEL", "warning")
    assert parsed("agent")["managers"] == ("a:1", "b:2")
    assert parsed("agent", "--log-level", "error")["log_level"] == "error"


@pytest.mark.parametrize("role", ["agent", "manager", "builder"])
def test_system_check(run: Run, role: str) -> None:
    result = run("system", "check", "--role", role, "--format", "json")
    found = json.loads(result.stdout)
    assert len(found) >= 3
    assert all(entry["detail"] for entry in found)
    assert (result.exit_code == 0) == all(entry["ok"] or entry["warning"] for entry in found)
    shown = run("system", "check", "--role", role)
    assert len(shown.stdout.splitlines()) == len(found)
    assert result.exit_code == 0 or "say what to do" in result.stderr
