"""A rollout in which the old task stops before the new one starts."""

from __future__ import annotations

from typing import Any

from tests.support.cluster import Cluster
from tests.unit.manager.rollout.build import COMPLETED, count, deployed, wanted

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def test_stop_first_prepares_then_stops_then_starts() -> None:
    order = {"order": spec.UPDATE_ORDER_STOP_FIRST}
    cluster = deployed(**order)
    cluster.deploy(wanted("v2-good", **order))
    cluster.converge()
    old, new = cluster.of_slot(1)
    assert new.desired_state == pb.TASK_STATE_READY and not old.leaving
    seen = []
    while cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING and not cluster.world.tasks[new.id].balanced_at:
        cluster.round()
        old, new = cluster.world.tasks[old.id], cluster.world.tasks[new.id]
        seen.append((old.leaving, old.status.state == pb.TASK_STATE_SHUTDOWN, new.desired_state))
        assert len(cluster.serving()) >= 3
        assert new.status.state >= pb.TASK_STATE_READY or not old.leaving
        assert new.status.state < pb.TASK_STATE_STARTING or old.status.state == pb.TASK_STATE_SHUTDOWN
    assert (False, False, pb.TASK_STATE_READY) in seen
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.receipt.replaced == 4


def with_host_port(image: str, replicas: int) -> spec.ServiceSpec:
    result = wanted(image, replicas)
    result.task.host_ports.add(target=80, published=8080, mode=spec.PUBLISH_MODE_HOST)
    return result


def test_a_host_port_on_every_node_is_handed_over_by_stop_first() -> None:
    cluster = Cluster(1)
    cluster.deploy(with_host_port("v1-good", 3))
    cluster.settle()
    cluster.deploy(with_host_port("v2-good", 3))
    for _ in range(100):
        cluster.round()
        assert len(cluster.serving()) >= 2
    cluster.settle()
    assert cluster.rollout.state == COMPLETED
    assert count(cluster, "v2-good") == 3


def test_stop_first_makes_room_where_there_is_none_for_both() -> None:
    order = {"order": spec.UPDATE_ORDER_STOP_FIRST}
    cluster = deployed(**order)
    tight = wanted("v2-good", **order)
    tight.task.resources.reserve_memory = 1 << 30
    cluster.deploy(tight)
    cluster.converge()
    waiting = next(t for t in cluster.living() if not t.node_id)
    waiting = cluster.world.put(_pending(waiting, "no suitable node: 3 of 3 nodes lack memory"))
    cluster.converge()
    assert cluster.of_slot(waiting.slot)[0].leaving


def test_stop_first_does_not_stop_for_a_task_that_would_not_fit_anyway() -> None:
    order = {"order": spec.UPDATE_ORDER_STOP_FIRST}
    cluster = deployed(**order)
    nowhere = wanted("v2-good", **order)
    nowhere.task.placement.constraints.append("node.hostname==n9")
    cluster.deploy(nowhere)
    cluster.run(60)
    assert count(cluster, "v1-good") == 4


def test_stop_first_does_not_stop_one_while_another_is_missing() -> None:
    order = {"order": spec.UPDATE_ORDER_STOP_FIRST}
    cluster = deployed(**order)
    cluster.deploy(wanted("v2-good", **order))
    cluster.run(9.9)
    done = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_DONE)
    cluster.now += 0.2
    cluster.converge()  # the third slot's turn begins
    cluster.fail(done)
    for _ in range(10):
        cluster.round()
        assert len(cluster.serving()) == 3
    assert not any(t.leaving for t in cluster.living())
    cluster.settle()
    assert cluster.rollout.state == COMPLETED


def test_stop_first_does_not_stop_for_a_task_that_has_to_wait() -> None:
    go_on: dict[str, Any] = {"action": spec.FAILURE_ACTION_CONTINUE, "replicas": 1}
    cluster = Cluster(1)
    cluster.deploy(wanted(**go_on))
    cluster.settle()
    cluster.deploy(wanted("v2-crashes", **go_on))
    cluster.run(20)
    cluster.deploy(wanted("v2-crashes", order=spec.UPDATE_ORDER_STOP_FIRST, **go_on))
    cluster.run(1)
    old, new = cluster.living()
    assert new.desired_state == pb.TASK_STATE_READY == new.status.state and new.start_after > cluster.now
    assert not old.leaving


def _pending(task: pb.Task, message: str) -> pb.Task:
    out = pb.Task()
    out.CopyFrom(task)
    out.status.state, out.status.message = pb.TASK_STATE_PENDING, message
    return out
