"""A rollout that goes well: batches, order, monitor time, what supersedes it, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.cluster import Cluster
from tests.unit.manager.rollout.build import COMPLETED, count, deployed, wanted

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import Put

SUPERSEDED = pb.ROLLOUT_STATE_SUPERSEDED


def test_parallelism_and_monitor_time() -> None:
    cluster = deployed(parallelism=2, monitor=5)
    cluster.deploy(wanted("v2-good", parallelism=2, monitor=5))
    cluster.run(4.9)
    assert (count(cluster, "v1-good"), count(cluster, "v2-good")) == (2, 2)
    assert sum(not row.is_new for row in cluster.rollout.receipt.tasks) == 2, "the others have not gone"
    cluster.run(4.9)
    assert count(cluster, "v2-good") == 4
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING, "the last ones are watched"
    cluster.run(0.3)
    assert cluster.rollout.state == COMPLETED


def test_parallelism_of_0_is_all_at_once() -> None:
    cluster = deployed(parallelism=0)
    cluster.deploy(wanted("v2-good", parallelism=0))
    cluster.run(0)
    assert count(cluster, "v2-good") == 4


def test_the_delay_runs_from_the_end_of_one_batch_to_the_next() -> None:
    policy: dict[str, Any] = {"parallelism": 2, "monitor": 5, "delay": 10}
    cluster = deployed(**policy)
    cluster.deploy(wanted("v2-good", **policy))
    cluster.run(14.9)
    assert count(cluster, "v2-good") == 2
    cluster.run(0.2)
    assert count(cluster, "v2-good") == 4
    cluster.run(5)
    assert cluster.rollout.state == COMPLETED


def test_start_first_waits_for_every_live_balancer() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    for _ in range(20):  # everybody works, but one node confirms nothing
        cluster.converge()
        cluster.schedule()
        for task_id in list(cluster.world.tasks):
            cluster.agent(task_id)
        cluster.acknowledge("n1")
        cluster.acknowledge("n2")
        cluster.drain()
    assert count(cluster, "v2-good") == 1 and count(cluster, "v1-good") == 4
    assert not any(t.leaving for t in cluster.living())
    cluster.acknowledge("n3")
    cluster.drain()
    plan = cluster.converge()
    left = [w.message for step in plan.steps for w in step if isinstance(w.message, pb.Task)]
    assert [(t.leaving, t.desired_state) for t in left] == [(True, pb.TASK_STATE_SHUTDOWN)]


def test_a_slot_is_not_done_before_its_old_task_is_gone() -> None:
    cluster = deployed(monitor=0)
    cluster.deploy(wanted("v2-good", monitor=0))
    while not any(t.released for t in cluster.living()):
        cluster.converge()
        cluster.schedule()
        for task in cluster.living():
            if not task.released:  # connections keep the old one busy
                cluster.agent(task.id)
        cluster.acknowledge_all()
        cluster.drain()
    for _ in range(5):
        cluster.converge()
    assert len(cluster.living()) == 5
    assert cluster.rollout.slots[0].phase == pb.SLOT_PHASE_DRAINING
    cluster.settle()
    assert cluster.rollout.state == COMPLETED


def test_a_rollout_with_nothing_to_do_completes_at_once() -> None:
    cluster = deployed()
    before = set(cluster.world.tasks)
    cluster.deploy(wanted())
    cluster.converge()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.finished_at == cluster.now
    assert cluster.rollout.receipt.outcome == "completed" and not cluster.rollout.receipt.tasks
    assert set(cluster.world.tasks) == before


def test_scaling_is_a_rollout_and_leaves_the_others_alone() -> None:
    cluster = deployed()
    before = {t.id for t in cluster.serving()}
    cluster.deploy(wanted(replicas=6))
    cluster.settle()
    assert cluster.rollout.state == COMPLETED
    assert before < {t.id for t in cluster.serving()} and len(cluster.living()) == 6
    cluster.deploy(wanted(replicas=2))
    cluster.converge()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING, "those that go have not drained yet"
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and len(cluster.living()) == 2
    assert cluster.rollout.receipt.replaced == 0
    assert sum(row.stopped_at > 0 for row in cluster.rollout.receipt.tasks) == 4


def test_an_update_that_scales_too() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good", replicas=6))
    cluster.converge()
    assert sum(t.spec.container.image == "v2-good" for t in cluster.wanted()) == 2, "new slots first, at once"
    cluster.settle()
    assert count(cluster, "v2-good") == 6 == len(cluster.living())


def test_a_newer_rollout_takes_over_and_keeps_what_serves() -> None:
    cluster = deployed()
    first = cluster.deploy(wanted("v2-good"))
    cluster.run(6)
    assert count(cluster, "v2-good") == 2
    cluster.deploy(wanted("v3-good"))
    floor = []
    for _ in range(200):
        cluster.round()
        floor.append(len(cluster.serving()))
    cluster.settle()
    overtaken = cluster.world.rollouts[first.id]
    assert overtaken.state == SUPERSEDED and overtaken.finished_at and overtaken.receipt.outcome == "superseded"
    assert overtaken.receipt.replaced == 2
    assert cluster.rollout.state == COMPLETED and count(cluster, "v3-good") == 4
    assert min(floor) >= 4


def test_a_newer_rollout_drops_the_tasks_on_their_way_for_the_older_one() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-hangs"))
    cluster.run(1)
    hanging = next(t for t in cluster.living() if t.spec.container.image == "v2-hangs")
    cluster.deploy(wanted("v3-good"))
    cluster.converge()
    assert cluster.world.tasks[hanging.id].desired_state == pb.TASK_STATE_SHUTDOWN
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and count(cluster, "v3-good") == 4


def test_what_serves_nothing_is_updated_at_once() -> None:
    cluster = deployed()
    for task in cluster.serving():
        cluster.set_health(task.id, pb.HEALTH_UNHEALTHY)
    cluster.deploy(wanted("v2-good"))
    cluster.run(1)
    assert count(cluster, "v2-good") == 4


def test_an_old_task_that_dies_meanwhile_is_restarted_as_it_was_or_updated() -> None:
    cluster = deployed(delay=100)
    cluster.deploy(wanted("v2-good", delay=100))
    cluster.run(20)
    cluster.fail(cluster.of_slot(4)[0].id)
    cluster.run(2)
    assert len(cluster.serving()) == 4
    assert cluster.rollout.failures == 0


def test_a_rollout_does_not_end_while_a_task_that_was_done_is_missing() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(19.9)
    done = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_DONE)
    cluster.fail(done)
    cluster.run(0.5)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING
    assert {p.phase for p in cluster.rollout.slots} == {pb.SLOT_PHASE_DONE}
    cluster.run(1)
    assert cluster.rollout.state == COMPLETED


def test_a_drained_node_in_a_rollout_moves_nothing_twice() -> None:
    cluster = deployed()
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    cluster.deploy(wanted("v2-good"))
    cluster.settle()
    assert cluster.rollout.state == COMPLETED
    assert len(cluster.world.ids_created) == 8
    assert {t.node_id for t in cluster.living()} == {"n2", "n3"}


def test_a_rollout_goes_on_in_the_hands_of_a_new_leader() -> None:
    """Everything that it needs is stored: a planner without any memory takes over after each write."""
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    for _ in range(400):
        cluster.acks.revisions.clear()  # a new leader knows of no confirmation
        cluster.converge(steps=1)
        cluster.schedule()
        for task_id in list(cluster.world.tasks):
            cluster.agent(task_id)
        cluster.acknowledge_all()
        cluster.drain(steps=1)
        cluster.now += 0.5
    assert cluster.rollout.state == COMPLETED and count(cluster, "v2-good") == len(cluster.living()) == 4


def test_two_runs_on_the_same_world_cannot_both_create_tasks() -> None:
    cluster = Cluster(1)
    cluster.deploy(wanted())
    first = cluster.converge(steps=0)
    second = cluster.converge(steps=0)
    cluster.world.apply(first)
    written = {type(w.message) for w in second.steps[0] if isinstance(w, Put)}
    assert written == {pb.Rollout, pb.Task}
    try:
        cluster.world.apply(second)
    except Exception as error:
        assert "version" in str(error)
    else:
        raise AssertionError("tasks were created twice")


def updated_everywhere() -> Cluster:
    """A global service, whose update is just asked for."""
    cluster = Cluster(1)
    everywhere = wanted(replicas=0)
    everywhere.mode = spec.SERVICE_MODE_GLOBAL
    cluster.deploy(everywhere)
    cluster.settle()
    everywhere.task.container.image = "v2-good"
    cluster.deploy(everywhere)
    return cluster


def test_global_services_are_updated_node_by_node() -> None:
    cluster = updated_everywhere()
    cluster.run(1)
    assert count(cluster, "v2-good") == 1
    assert sorted(p.node_id for p in cluster.rollout.slots) == ["n1", "n2", "n3"]
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and count(cluster, "v2-good") == len(cluster.living()) == 3
    assert cluster.rollout.receipt.replaced == 3


@pytest.mark.parametrize("is_placed", [False, True])
def test_a_global_service_on_a_node_that_is_paused_while_it_is_updated(is_placed: bool) -> None:
    """What was placed there goes on, and counts: it is not yet the next one's turn. What was not is given up."""
    cluster = updated_everywhere()
    cluster.converge()
    if is_placed:
        cluster.schedule()
    assert len(cluster.living()) == 4
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_PAUSE)
    for _ in range(20):
        cluster.converge()
        assert len(cluster.living()) <= 4
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and len(cluster.living()) == 3
    assert {t.node_id for t in cluster.serving() if t.spec.container.image == "v1-good"} == (
        set() if is_placed else {"n1"}
    )


def test_rollouts_wake_up_for_their_timers() -> None:
    cluster = deployed(monitor=5, deadline=600)
    cluster.deploy(wanted("v2-good", monitor=5, deadline=600))
    cluster.run(1)
    start = cluster.now - 1
    assert cluster.converge().wake_at == start + 5
    cluster.deploy(wanted("v3-hangs", deadline=600))
    cluster.run(1)
    assert cluster.converge().wake_at == start + 601
