from __future__ import annotations

import json
import time

import pytest
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import discovery
from pyswarm_manager.endpoints.derive import derive, hold_until, is_serving

NOW = 1000.0
SERVING, LEAVING = ep.ENDPOINT_STATE_SERVING, ep.ENDPOINT_STATE_LEAVING


def cluster() -> FakeWorld:
    world = FakeWorld()
    world.put(*(build.node(f"host-{n}", number=n) for n in (1, 2, 3)))
    world.put(pb.Network(id="default", spec=spec.NetworkSpec(name="net", subnet="10.128.0.0/16")))
    wanted = build.service_spec(replicas=3)
    wanted.affinity = True
    wanted.ports.add(target=80, published=8080)
    wanted.ports.add(target=81, published=8081, mode=spec.PUBLISH_MODE_HOST)
    wanted.task.networks[0].aliases.append("www")
    world.put(build.service(wanted))
    return world


def add(world: FakeWorld, slot: int, **changes: object) -> pb.Task:
    """A healthy task on host-<slot>, changed as told: fields of Task, of its status, or `healthy_at`."""
    changes = dict(changes)
    task = build.task(
        str(changes.pop("id", f"t{slot}")),
        world.services["svc"],
        slot=slot,
        node_id=str(changes.pop("node_id", f"host-{slot}")),
        state=changes.pop("state", pb.TASK_STATE_RUNNING),  # type: ignore[arg-type]
        desired=changes.pop("desired", pb.TASK_STATE_RUNNING),  # type: ignore[arg-type]
        health=changes.pop("health", pb.HEALTH_NONE),  # type: ignore[arg-type]
    )
    task.addresses.add(network_id="default", address=f"10.128.64.{slot}")
    task.status.timings.healthy_at = float(changes.pop("healthy_at", 1.0))  # type: ignore[arg-type]
    for name, value in changes.items():
        setattr(task, name, value)
    return world.put(task)


def states(world: FakeWorld) -> dict[str, int]:
    return {e.task_id: e.state for e in derive(world, "svc", NOW, None).endpoints}


def test_what_every_balancer_gets() -> None:
    world = cluster()
    for slot in (3, 1, 2):
        add(world, slot)
    found = derive(world, "svc", NOW, None)
    assert (found.service_id, found.name, found.mode, found.affinity) == ("svc", "web", spec.ENDPOINT_MODE_VIP, True)
    assert [(v.network_id, v.address) for v in found.vips] == [("default", "10.128.0.2")]
    assert [(p.published, p.target) for p in found.ports] == [(8080, 80)], "host-mode ports need no balancer"
    assert [list(n.aliases) for n in found.networks] == [["www"]]
    assert [(e.slot, e.task_id, e.node_id, e.hostname, e.task_name, e.weight) for e in found.endpoints] == [
        (n, f"t{n}", f"host-{n}", f"host-{n}", f"web.{n}", 1) for n in (1, 2, 3)
    ]
    assert [a.address for a in found.endpoints[0].addresses] == ["10.128.64.1"]
    assert not found.hold
    assert is_serving(world, "svc")


def test_the_order_of_writing_does_not_show() -> None:
    one, other = cluster(), cluster()
    for slot in (1, 2, 3):
        add(one, slot)
    for slot in (3, 2, 1):
        add(other, slot)
    assert derive(one, "svc", NOW, None) == derive(other, "svc", NOW + 7, None)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, SERVING),
        ({"health": pb.HEALTH_HEALTHY}, SERVING),
        ({"health": pb.HEALTH_STARTING, "state": pb.TASK_STATE_STARTING, "healthy_at": 0}, None),
        ({"health": pb.HEALTH_UNHEALTHY}, LEAVING),
        ({"leaving": True, "desired": pb.TASK_STATE_SHUTDOWN}, LEAVING),
        ({"leaving": True, "state": pb.TASK_STATE_SHUTDOWN}, LEAVING),
        ({"leaving": True, "state": pb.TASK_STATE_SHUTDOWN, "addresses_free": True}, None),
        ({"state": pb.TASK_STATE_FAILED}, LEAVING),  # died without notice
        ({"state": pb.TASK_STATE_FAILED, "healthy_at": 0, "balanced_at": 5.0}, LEAVING),
        ({"state": pb.TASK_STATE_FAILED, "healthy_at": 0}, None),  # was never up: nobody knows it
        ({"state": pb.TASK_STATE_FAILED, "addresses_free": True}, None),
        ({"state": pb.TASK_STATE_PREPARING, "healthy_at": 0}, None),
    ],
)
def test_state_of_an_endpoint(changes: dict[str, object], state: int | None) -> None:
    world = cluster()
    add(world, 1, **changes)
    assert states(world) == ({} if state is None else {"t1": state})


def test_tasks_of_a_node_that_is_down_leave() -> None:
    world = cluster()
    add(world, 1)
    add(world, 2)
    world.put(build.node("host-1", state=pb.NODE_STATE_DOWN))
    world.put(build.node("host-2", number=2, state=pb.NODE_STATE_UNKNOWN))
    assert states(world) == {"t1": LEAVING, "t2": SERVING}


def test_a_service_that_is_gone_keeps_its_leaving_tasks() -> None:
    world = cluster()
    add(world, 1, leaving=True)
    world.delete(world.services["svc"])
    found = derive(world, "svc", NOW, None)
    assert [e.state for e in found.endpoints] == [LEAVING]
    assert not found.hold
    assert hold_until(world, "svc", NOW, None) is None


def _hold(world: FakeWorld, now: float, empty_since: float | None) -> bool:
    held = derive(world, "svc", now, empty_since).hold
    until = hold_until(world, "svc", now, empty_since)
    assert held is (until is not None), "asked again exactly when a hold is in force"
    assert until is None or until > now
    return held


def test_holds_while_a_rollout_runs_until_its_deadline_and_at_most_30_s() -> None:
    world = cluster()
    service = pb.Service.FromString(world.services["svc"].SerializeToString())
    service.rollout_id = "r"
    service.spec.task.restart.condition = spec.RESTART_CONDITION_NONE
    world.put(service)
    rollout = pb.Rollout(id="r", service_id="svc", deadline_at=NOW + 600)
    world.put(rollout)
    assert _hold(world, NOW, None)
    assert _hold(world, NOW + 29, NOW)
    assert not _hold(world, NOW + 30, NOW)
    assert hold_until(world, "svc", NOW + 1, NOW) == NOW + 30
    rollout.deadline_at = NOW + 10
    world.put(rollout)
    assert _hold(world, NOW + 9, NOW)
    assert not _hold(world, NOW + 10, NOW)
    rollout.state = pb.ROLLOUT_STATE_ROLLING_BACK
    world.put(rollout)
    assert _hold(world, NOW + 10, NOW)
    rollout.state = pb.ROLLOUT_STATE_COMPLETED
    world.put(rollout)
    assert not _hold(world, NOW, NOW)


def test_does_not_hold_with_an_endpoint() -> None:
    world = cluster()
    add(world, 1)
    add(world, 2, state=pb.TASK_STATE_STARTING, healthy_at=0)
    assert not _hold(world, NOW, None)


@pytest.mark.parametrize(
    ("tasks", "condition", "holds"),
    [
        ([], spec.RESTART_CONDITION_ANY, True),
        ([], spec.RESTART_CONDITION_NONE, False),
        ([{"state": pb.TASK_STATE_PREPARING, "healthy_at": 0}], spec.RESTART_CONDITION_NONE, True),
        ([{"state": pb.TASK_STATE_FAILED}], spec.RESTART_CONDITION_ANY, True),
        ([{"state": pb.TASK_STATE_FAILED}], spec.RESTART_CONDITION_ON_FAILURE, True),
        ([{"state": pb.TASK_STATE_FAILED}], spec.RESTART_CONDITION_NONE, False),
        ([{"state": pb.TASK_STATE_COMPLETE}], spec.RESTART_CONDITION_ON_FAILURE, False),
        ([{"state": pb.TASK_STATE_COMPLETE}], spec.RESTART_CONDITION_ANY, True),
        ([{"state": pb.TASK_STATE_RUNNING, "health": pb.HEALTH_UNHEALTHY}], spec.RESTART_CONDITION_NONE, True),
    ],
)
def test_holds_for_a_restart(tasks: list[dict[str, object]], condition: int, holds: bool) -> None:
    world = cluster()
    service = pb.Service.FromString(world.services["svc"].SerializeToString())
    service.spec.task.restart.condition = condition  # type: ignore[assignment]
    world.put(service)
    for slot, changes in enumerate(tasks, start=1):
        add(world, slot, **changes)
    assert _hold(world, NOW, NOW) is holds
    assert not _hold(world, NOW + 30, NOW)


def test_does_not_hold_when_the_attempts_are_used_up() -> None:
    world = cluster()
    service = pb.Service.FromString(world.services["svc"].SerializeToString())
    service.spec.task.restart.max_attempts = 3
    world.put(service)
    add(world, 1, state=pb.TASK_STATE_FAILED, window_at=NOW, window_restarts=2)
    assert _hold(world, NOW, NOW)
    add(world, 1, state=pb.TASK_STATE_FAILED, window_at=NOW, window_restarts=3)
    assert not _hold(world, NOW, NOW)


@pytest.mark.parametrize("field", ["removing", "replicas"])
def test_does_not_hold_for_what_is_not_wanted(field: str) -> None:
    world = cluster()
    service = pb.Service.FromString(world.services["svc"].SerializeToString())
    if field == "removing":
        service.removing = True
    else:
        service.spec.replicas = 0
    world.put(service)
    add(world, 1, leaving=True, desired=pb.TASK_STATE_SHUTDOWN)
    assert not _hold(world, NOW, NOW)


def test_discovery_value() -> None:
    world = cluster()
    add(world, 1)
    add(world, 2, leaving=True)
    value = discovery.service_value(world, world.services["svc"], derive(world, "svc", NOW, None))
    assert discovery.service_key("web") == "/pyswarm/discovery/services/web"
    assert json.loads(value) == {
        "id": "svc",
        "name": "web",
        "mode": "vip",
        "labels": {},
        "vips": {"net": "10.128.0.2"},
        "ports": [
            {"published": 8080, "target": 80, "protocol": "tcp", "mode": "ingress"},
            {"published": 8081, "target": 81, "protocol": "tcp", "mode": "host"},
        ],
        "endpoints": [
            {
                "task": "web.1",
                "task_id": "t1",
                "slot": 1,
                "node": "host-1",
                "node_id": "host-1",
                "node_address": "10.90.0.11",
                "addresses": {"net": "10.128.64.1"},
            }
        ],
    }


def test_is_fast_enough_for_thousands_of_services() -> None:
    """5,000 services are derived anew at a full load: ten endpoints must stay far below a millisecond."""
    world = cluster()
    for slot in range(1, 11):
        add(world, slot, node_id="host-1")
    best = min(_timed(world) for _ in range(20))
    assert best < 0.001, f"{best * 1e6:.0f} µs"


def _timed(world: FakeWorld) -> float:
    start = time.perf_counter()
    derive(world, "svc", NOW, None)
    return time.perf_counter() - start
