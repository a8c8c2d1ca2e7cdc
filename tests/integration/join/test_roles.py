"""Managers come and go: by join, by promote and demote, and with an empty disk. Everybody learns of it by himself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.join.hosts import MARKS, Bare, bare_hosts, eventually, start

from pyswarm_core import tls

pytestmark = [*MARKS, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def bare() -> Iterator[list[Bare]]:
    """A manager and three workers."""
    with bare_hosts(4) as made:
        first = made[0]
        first.start(first.run("init", "--advertise-addr", first.address))
        eventually(lambda: statuses(first) == ["leader"], "the first manager leads", bare=first)
        token = first.run("swarm", "join-token", "worker", "-q").strip()
        for host in made[1:]:
            host.start(host.run("join", "--token", token, first.address))
        eventually(lambda: all_ready(first, 4), "all are ready", bare=first)
        yield made


def all_ready(manager: Bare, count: int) -> bool:
    nodes = manager.nodes()
    return len(nodes) == count and all(node["status"] == "ready" for node in nodes)


def statuses(manager: Bare) -> list[str]:
    return sorted(n["manager_status"] for n in manager.nodes() if n["manager_status"])


def node(manager: Bare, host: Bare) -> dict[str, Any]:
    return next((n for n in manager.nodes() if n["hostname"] == host.host.name), {})


def record(host: Bare) -> dict[str, Any]:
    return json.loads(host.files()["node.json"])


def context_managers(host: Bare) -> list[str]:
    path = host.context / "context.json"
    return json.loads(path.read_text())["managers"] if path.exists() else []


def api(*hosts: Bare) -> list[str]:
    return sorted(f"{host.address}:2377" for host in hosts)


def voters(host: Bare) -> list[str]:
    """HOST:PORT of etcd's members with a vote, as this host's manager last wrote them down."""
    path = host.host.data / "manager" / "etcd.json"
    return sorted(json.loads(path.read_text())) if path.exists() else []


def test_promoted_workers_manage(bare: list[Bare]) -> None:
    first, second, third, worker = bare
    said = first.run("node", "promote", second.host.name, third.host.name)
    assert f"Node {second.host.name} is a manager." in said
    assert statuses(first) == ["leader", "reachable", "reachable"]
    assert statuses(second) == ["leader", "reachable", "reachable"], "its root talks to the cluster at once"
    for host in (second, third):
        assert tls.Identity.load(host.host.etc / "pyswarm" / "tls").subject.role == "manager"
        assert record(host)["role"] == "manager"
    eventually(lambda: context_managers(first) == api(first, second, third), "the first one's context follows")
    eventually(lambda: sorted(record(worker)["managers"]) == api(first, second, third), "the worker's record follows")
    everywhere = sorted(f"{host.address}:2379" for host in (first, second, third))
    eventually(lambda: all(voters(h) == everywhere for h in (first, second, third)), "each knows all of etcd")


def test_the_first_known_manager_may_be_gone(bare: list[Bare]) -> None:
    first, second, third, worker = bare
    for daemon in ("agent", "manager", "etcd"):
        first.stop(daemon)
    eventually(lambda: "leader" in statuses(second), "another leads", bare=second)
    restart_agent(worker)
    eventually(lambda: node(second, worker).get("status") == "ready", "the restarted agent found it", bare=worker)
    eventually(lambda: node(second, first).get("manager_status") == "unreachable", "the one that is away is told")
    # With one of three away the other two must stay.
    said = second.run("node", "demote", third.host.name, code=1)
    assert "cannot be demoted now" in said and "1 answer, and 2 must" in said
    assert record(third)["role"] == "manager"


def restart_agent(host: Bare) -> None:
    host.stop("agent")
    start(host, "agent")
    eventually(lambda: host.pid("agent"), "it runs")


def test_an_empty_disk_comes_back(bare: list[Bare]) -> None:
    """The first host made the cluster: its etcd must not make another, and cannot be the member that it was."""
    first, second, _, _ = bare
    shutil.rmtree(first.host.data / "etcd")
    shutil.rmtree(first.host.data / "manager")
    shutil.rmtree(first.host.data / "agent")
    start(first, "etcd", "manager", "agent")
    eventually(
        lambda: statuses(second) == ["leader", "reachable", "reachable"] and all_ready(second, 4),
        "all three manage again",
        bare=first,
    )
    assert "has lost its data" in second.log("manager") + bare[2].log("manager") + promoted_log(second, bare[2])
    assert not node(second, first)["manager_message"]


def promoted_log(*hosts: Bare) -> str:
    """Of managers that their agents started."""
    paths = [host.host.data / "log" / "manager.log" for host in hosts]
    return "".join(path.read_text() for path in paths if path.exists())


def test_demoted_managers_are_workers(bare: list[Bare]) -> None:
    first, second, third, worker = bare
    leader = next(h for h in (first, second, third) if node(first, h)["manager_status"] == "leader")
    stays = first if leader is not first else second
    said = stays.run("node", "demote", leader.host.name)
    assert f"Node {leader.host.name} is a worker." in said
    assert statuses(stays) == ["leader", "reachable"]
    assert all_ready(stays, 4)
    assert tls.Identity.load(leader.host.etc / "pyswarm" / "tls").subject.role == "worker"
    assert not {"etcd.env", "manager.env"} & leader.files().keys()
    assert not (leader.host.data / "etcd").exists() and not (leader.host.data / "manager").exists()
    assert not context_managers(leader)
    managers = api(*(h for h in (first, second, third) if h is not leader))
    eventually(lambda: sorted(record(worker)["managers"]) == managers, "the worker's record follows")

    other = next(h for h in (first, second, third) if h not in (leader, stays))
    stays.run("node", "demote", other.host.name)
    assert statuses(stays) == ["leader"]
    assert "is the only manager" in stays.run("node", "demote", stays.host.name, code=1)
    assert "one more" not in stays.run("node", "promote", leader.host.name), "a former manager may be one again"
    assert statuses(leader) == ["leader", "reachable"]
