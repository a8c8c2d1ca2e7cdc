"""A worker becomes a manager and a worker again where systemd is the first process, and leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.support.lab import eventually
from tests.support.machines import trees
from tests.support.machines.fleet import Fleet
from tests.support.machines.machine import Machine

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(trees.missing()), reason=trees.missing() or "real hosts"),
]

INSTALL = """set -e
python3 -m venv /opt/pyswarm
/opt/pyswarm/bin/pip install -q --no-index --find-links /srv/shared/wheels /srv/shared/new/*.whl
ln -sf /opt/pyswarm/bin/pyswarm /usr/local/bin/pyswarm
systemctl disable -q --now etcd 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    with Fleet("roles", count=2) as fleet:
        (fleet.shared / "new").mkdir()
        shutil.copy(fleet.wheel(), fleet.shared / "new")
        fleet.boot(fleet.machines)
        for machine in fleet.machines:
            machine.ssh(INSTALL)
        first, second = fleet.machines
        first.pyswarm(f"init --advertise-addr {first.address}")
        eventually(lambda: _ready(first) == 1, "the manager is ready")
        token = first.pyswarm("swarm join-token worker -q").strip()
        second.pyswarm(f"join --token {token} --advertise-addr {second.address} {first.address}:2377")
        eventually(lambda: _ready(first) == 2, "both are ready")
        yield fleet.machines


def _ready(manager: Machine) -> int:
    return sum(node["status"] == "ready" for node in manager.json("node ls"))


def _managers(manager: Machine) -> list[str]:
    return sorted(n["manager_status"] for n in manager.json("node ls") if n["manager_status"])


def _units(machine: Machine) -> list[str]:
    """Name and state of each."""
    listed = machine.ssh("systemctl list-units --plain --no-legend 'pyswarm-*'").splitlines()
    return sorted(f"{line.split()[0]} {line.split()[2]}" for line in listed)


def test_promoted(machines: list[Machine]) -> None:
    first, second = machines
    agent = second.main_pid("agent")
    said = first.pyswarm(f"node promote {second.name}")
    assert f"Node {second.name} is a manager." in said
    assert _managers(second) == ["leader", "reachable"]
    running = [f"pyswarm-{daemon}.service active" for daemon in ("agent", "etcd", "manager")]
    assert _units(second) == running
    assert second.main_pid("agent") == agent
    second.reboot()
    eventually(lambda: _ready(second) == 2 and _managers(second) == ["leader", "reachable"], "it is back by itself")


def test_demoted(machines: list[Machine]) -> None:
    first, second = machines
    first.pyswarm(f"node demote {second.name}")
    assert _managers(first) == ["leader"]
    assert _units(second) == ["pyswarm-agent.service active"]
    assert "etcd" not in second.ssh("ls /etc/pyswarm /etc/systemd/system /var/lib/pyswarm")


def test_left(machines: list[Machine]) -> None:
    first, second = machines
    assert "has left its cluster" in second.pyswarm("leave")
    assert len(first.json("node ls")) == 1
    assert _units(second) == []
    assert second.ssh("ls /etc/pyswarm /var/lib/pyswarm /run/pyswarm 2>/dev/null | grep -v : || true").split() == []
