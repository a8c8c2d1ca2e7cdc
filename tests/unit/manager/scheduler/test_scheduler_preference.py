"""Of the nodes that would do, which one is taken."""

from __future__ import annotations

import pytest
from tests.support import build
from tests.support.world import FakeWorld
from tests.unit.manager.scheduler.placing import NOW, cluster, deploy, per_node, schedule, three

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def test_fewest_of_the_service_first_then_load() -> None:
    world = three()
    deploy(world, build.service_spec("a", replicas=1))
    schedule(world)
    deploy(world, build.service_spec("b", replicas=1))
    schedule(world)
    deploy(world, build.service_spec("c", replicas=4))
    schedule(world)
    assert per_node(world, "a") == {"host-1": 1}
    assert per_node(world, "b") == {"host-2": 1}
    assert per_node(world, "c") == {"host-3": 2, "host-1": 1, "host-2": 1}


def test_a_start_first_rollout_keeps_the_spread() -> None:
    world = three()
    service = deploy(world, build.service_spec(replicas=3))
    schedule(world)
    before = {t.slot: t.node_id for t in world.tasks.values()}
    for slot in (1, 2, 3):
        world.put(build.task(f"new-{slot}", service, slot=slot, created_at=NOW + 10 + slot))
        schedule(world, NOW + 10 + slot)
        old = pb.Task.FromString(world.tasks[f"web-{slot}"].SerializeToString())
        old.desired_state = pb.TASK_STATE_SHUTDOWN
        old.leaving = True
        world.put(old)
    after = {t.slot: t.node_id for t in world.tasks.values() if t.id.startswith("new")}
    assert after == before


def test_preferences_level_by_level() -> None:
    world = cluster(
        *(
            build.node(f"host-{n}", number=n, labels=labels)
            for n, labels in enumerate(
                (
                    {"zone": "a", "rack": "1"},
                    {"zone": "a", "rack": "1"},
                    {"zone": "a", "rack": "2"},
                    {"zone": "b", "rack": "1"},
                ),
                start=1,
            )
        )
    )
    wanted = build.service_spec(replicas=8)
    wanted.task.placement.preferences.extend(["spread=node.labels.zone", "spread=node.labels.rack"])
    deploy(world, wanted)
    schedule(world)
    assert per_node(world) == {"host-1": 1, "host-2": 1, "host-3": 2, "host-4": 4}


def test_a_branch_counts_what_runs_on_nodes_that_take_no_more() -> None:
    world = cluster(
        build.node("a1", number=1, labels={"zone": "a"}),
        build.node("a2", number=2, labels={"zone": "a"}, availability=spec.NODE_AVAILABILITY_PAUSE),
        build.node("b1", number=3, labels={"zone": "b"}),
    )
    wanted = build.service_spec(replicas=2)
    wanted.task.placement.preferences.append("spread=node.labels.zone")
    service = deploy(world, wanted)
    for slot in (8, 9):
        world.put(build.task(f"old-{slot}", service, slot=slot, node_id="a2", state=pb.TASK_STATE_RUNNING))
    schedule(world)
    assert per_node(world) == {"a2": 2, "b1": 2}


def _failures(world: FakeWorld, service: pb.Service, node_id: str, times: list[float]) -> None:
    for n, at in enumerate(times):
        world.put(
            build.task(
                f"failed-{node_id}-{n}",
                service,
                slot=9,
                node_id=node_id,
                state=pb.TASK_STATE_FAILED,
                desired=pb.TASK_STATE_SHUTDOWN,
                at=at,
            )
        )


@pytest.mark.parametrize(
    ("times", "avoided"),
    [
        ([NOW - 250, NOW - 200, NOW - 150, NOW - 100, NOW - 50], True),
        ([NOW - 200, NOW - 150, NOW - 100, NOW - 50], False),
        ([NOW - 400, NOW - 200, NOW - 150, NOW - 100, NOW - 50], False),  # not within five minutes
        ([NOW - 590, NOW - 580, NOW - 570, NOW - 560, NOW - 299], True),
        ([NOW - 590, NOW - 580, NOW - 570, NOW - 560, NOW - 301], False),  # five minutes are over
    ],
)
def test_avoids_a_node_on_which_the_service_keeps_failing(times: list[float], avoided: bool) -> None:
    world = three()
    service = deploy(world, build.service_spec(replicas=4))
    _failures(world, service, "host-1", times)
    schedule(world)
    placed = {t.node_id for t in world.tasks.values() if t.status.state == pb.TASK_STATE_ASSIGNED}
    assert placed == ({"host-2", "host-3"} if avoided else {"host-1", "host-2", "host-3"})


def test_a_failing_node_is_used_when_there_is_no_other() -> None:
    world = cluster(build.node("host-1"))
    service = deploy(world, build.service_spec(replicas=1))
    _failures(world, service, "host-1", [NOW - n for n in range(5)])
    other = deploy(world, build.service_spec("other", replicas=1))
    assert other.id == "other"
    schedule(world)
    assert world.tasks["web-1"].node_id == "host-1"
    assert world.tasks["other-1"].node_id == "host-1"
