"""A rollout that does not go well ends as it was told to, and says why."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import changed

CONTINUE, PAUSE = spec.FAILURE_ACTION_CONTINUE, spec.FAILURE_ACTION_PAUSE
COMPLETED, PAUSED, ROLLED_BACK = (
    pb.ROLLOUT_STATE_COMPLETED,
    pb.ROLLOUT_STATE_PAUSED,
    pb.ROLLOUT_STATE_ROLLED_BACK,
)


def wanted(image: str = "v1-good", replicas: int = 4, **policy: Any) -> spec.ServiceSpec:
    return build.service_spec(
        replicas=replicas,
        task=build.task_spec(image),
        update=build.policy(**policy),
    )


def deployed(**policy: Any) -> Cluster:
    cluster = Cluster(1)
    cluster.deploy(wanted(**policy))
    cluster.settle()
    assert cluster.rollout.state == COMPLETED
    return cluster


def images(cluster: Cluster) -> dict[str, int]:
    found = [t.spec.container.image for t in cluster.serving()]
    return {image: found.count(image) for image in found}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("v2-crashes", "failed: exit code 3"),
        ("v2-unknown", "could not be prepared: no such tag"),
        ("v2-hangs", "the deadline of 600 s passed with 4 of 4 tasks not ready"),
    ],
)
@pytest.mark.parametrize("order", [spec.UPDATE_ORDER_START_FIRST, spec.UPDATE_ORDER_STOP_FIRST])
def test_a_failed_update_rolls_back_to_exactly_what_was(
    image: str, reason: str, order: spec.UpdateOrder.ValueType
) -> None:
    cluster = deployed(order=order)
    before = cluster.service.spec.SerializeToString(deterministic=True)
    tasks = {t.id for t in cluster.serving()}
    cluster.deploy(wanted(image, order=order))
    floor = 4 if order == spec.UPDATE_ORDER_START_FIRST else 3
    while not cluster.rollout.finished_at:
        if not cluster.round():
            wake = cluster.converge().wake_at
            assert wake is not None
            cluster.now = wake
        assert images(cluster).get("v1-good", 0) >= floor
    rollout = cluster.rollout
    assert rollout.state == ROLLED_BACK and rollout.generation == 1
    assert rollout.failed is (image != "v2-hangs") and rollout.deadline_passed is (image == "v2-hangs")
    assert reason in rollout.reason
    assert cluster.service.spec.SerializeToString(deterministic=True) == before
    assert not cluster.service.HasField("previous_spec")
    assert cluster.service.spec_version == 3, "each change of the spec raises it"
    assert images(cluster) == {"v1-good": 4} and len(cluster.living()) == 4
    if order == spec.UPDATE_ORDER_START_FIRST or image == "v2-unknown":
        assert {t.id for t in cluster.serving()} == tasks, "nothing that served was touched"
    assert rollout.receipt.outcome == "rolled back" and rollout.receipt.reason == rollout.reason
    assert cluster.world.tasks[rollout.failed_task_id].spec.container.image == image


def test_half_done_slots_go_back_too() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(7)
    assert images(cluster) == {"v1-good": 2, "v2-good": 2}
    watched = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_MONITORING)
    cluster.fail(watched)
    cluster.converge()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK
    kept = {t.id for t in cluster.serving() if t.spec.container.image == "v1-good"}
    floor = []
    for _ in range(100):
        cluster.round()
        floor.append(len(cluster.serving()))
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK
    assert kept < {t.id for t in cluster.serving()}
    assert images(cluster) == {"v1-good": 4} and min(floor) >= 3


def test_the_replicas_go_back_as_well() -> None:
    cluster = deployed()
    before = {t.id for t in cluster.serving()}
    cluster.deploy(wanted("v2-crashes", replicas=7))
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK
    assert {t.id for t in cluster.living()} == before


def test_a_failure_after_the_monitor_time_is_the_restart_policys() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(6)
    done = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_DONE)
    cluster.fail(done)
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.failures == 0
    assert images(cluster) == {"v2-good": 4}


def test_becoming_unhealthy_while_watched_is_a_failure() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(1)
    watched = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_MONITORING)
    sick = changed(cluster.world.tasks[watched])
    sick.status.message = "unhealthy: HTTP 500"
    cluster.world.put(sick)
    cluster.set_health(watched, pb.HEALTH_UNHEALTHY)
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK
    assert "became unhealthy: HTTP 500" in cluster.rollout.reason


def test_ending_with_0_is_a_failure_of_what_was_to_run_for_ever() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(1)
    cluster.fail(cluster.rollout.slots[0].new_task_id, pb.TASK_STATE_COMPLETE)
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK
    assert "exit code 0" in cluster.rollout.reason


def test_pause_freezes_what_is_there() -> None:
    cluster = deployed(action=PAUSE)
    cluster.deploy(wanted("v2-crashes", action=PAUSE))
    cluster.run(2000)
    assert cluster.rollout.state == PAUSED and cluster.rollout.finished_at
    assert images(cluster) == {"v1-good": 4} and len(cluster.living()) == 4
    assert cluster.service.spec.task.container.image == "v2-crashes"
    cluster.deploy(wanted("v3-good", action=PAUSE))
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and images(cluster) == {"v3-good": 4}


def test_the_first_deploy_has_nothing_to_go_back_to() -> None:
    cluster = Cluster(1)
    cluster.deploy(wanted("v1-crashes"))
    cluster.run(10)
    assert cluster.rollout.state == PAUSED and cluster.rollout.failed
    assert "first deploy" in cluster.rollout.reason and "exit code 3" in cluster.rollout.reason
    assert len(cluster.wanted()) == 4, "the restart policy goes on"


def test_the_first_deploy_that_cannot_be_placed() -> None:
    cluster = Cluster(1)
    nowhere = wanted(deadline=30)
    nowhere.task.placement.constraints.append("node.hostname==n9")
    cluster.deploy(nowhere)
    cluster.run(31)
    rollout = cluster.rollout
    assert rollout.state == PAUSED and rollout.deadline_passed and not rollout.failed
    assert "the deadline of 30 s passed with 4 of 4 tasks not ready; web.1 is stuck: no suitable node" in rollout.reason


def test_a_deploy_that_changed_nothing_does_not_roll_back_to_an_older_spec() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.settle()
    service, rollout = changed(cluster.service), changed(cluster.rollout)
    service.rollout_id = rollout.id = "again"
    rollout.version, rollout.state, rollout.finished_at = 0, pb.ROLLOUT_STATE_RUNNING, 0
    rollout.started_at, rollout.deadline_at = cluster.now, cluster.now + 600
    rollout.from_version = rollout.to_version = service.spec_version
    del rollout.slots[:]
    cluster.set_health(cluster.serving()[0].id, pb.HEALTH_UNHEALTHY)
    cluster.world.put(service, rollout)
    cluster.converge()
    cluster.converge()
    broken = next(t for t in cluster.wanted() if t.status.state == pb.TASK_STATE_NEW)
    dead = changed(broken)
    dead.status.state = pb.TASK_STATE_REJECTED
    cluster.world.put(dead)
    cluster.converge()
    assert cluster.rollout.state == PAUSED
    assert cluster.service.spec.task.container.image == "v2-good"


def test_failures_within_the_ratio_are_put_up_with() -> None:
    cluster = deployed(ratio=0.25, parallelism=0)
    cluster.deploy(wanted("v2-good", ratio=0.25, parallelism=0))
    cluster.run(1)
    for second in range(5):  # and goes on failing
        cluster.fail(cluster.of_slot(1)[-1].id)
        cluster.run(1 if second < 4 else 0.5)
    assert cluster.rollout.state == COMPLETED and len(cluster.serving()) == 3
    assert (cluster.rollout.failures, cluster.rollout.failed) == (1, False)
    assert "1 of 4 tasks failed" in cluster.rollout.reason
    cluster.settle()
    assert images(cluster) == {"v2-good": 4}


def test_one_failure_more_than_the_ratio_is_one_too_many() -> None:
    cluster = deployed(ratio=0.25, parallelism=0)
    cluster.deploy(wanted("v2-good", ratio=0.25, parallelism=0))
    cluster.run(1)
    for progress in cluster.rollout.slots[:2]:
        cluster.fail(progress.new_task_id)
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK and cluster.rollout.receipt.failures == 2


def test_continue_goes_on_and_ends_when_everything_runs_after_all() -> None:
    cluster = deployed(action=CONTINUE)
    cluster.deploy(wanted("v2-good", action=CONTINUE))
    cluster.run(1)
    cluster.fail(cluster.rollout.slots[0].new_task_id)
    cluster.run(12)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING and cluster.rollout.failed
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and images(cluster) == {"v2-good": 4}
    assert "goes on" in cluster.rollout.reason


def test_a_slot_that_waits_for_its_restart_does_not_hold_up_the_others() -> None:
    slow = wanted(action=CONTINUE, order=spec.UPDATE_ORDER_STOP_FIRST)
    slow.task.restart.delay = 300
    cluster = Cluster(1)
    cluster.deploy(slow)
    cluster.settle()
    slow.task.container.image = "v2-good"
    cluster.deploy(slow)
    cluster.run(1)
    cluster.fail(cluster.of_slot(1)[-1].id)
    cluster.run(60)
    assert images(cluster) == {"v2-good": 3}


def test_a_new_task_that_turns_unhealthy_before_it_is_balanced_goes_and_the_old_one_stays() -> None:
    cluster = deployed(action=PAUSE)
    cluster.deploy(wanted("v2-good", action=PAUSE))
    while not (new := [t for t in cluster.serving() if t.spec.container.image == "v2-good"]):
        cluster.converge()
        cluster.schedule()
        for task in cluster.living():
            cluster.agent(task.id)
    cluster.set_health(new[0].id, pb.HEALTH_UNHEALTHY)
    cluster.settle()
    assert cluster.rollout.state == PAUSED
    assert images(cluster) == {"v1-good": 4} and len(cluster.living()) == 4


def test_an_automatic_rollback_follows_the_rollback_policy() -> None:
    cluster = Cluster(1)
    patient = wanted()
    patient.rollback.monitor = 50
    cluster.deploy(patient)
    cluster.settle()
    patient.task.container.image = "v2-good"
    cluster.deploy(patient)
    cluster.run(7)
    cluster.fail(cluster.rollout.slots[1].new_task_id)
    cluster.run(49)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK
    cluster.run(55)
    assert cluster.rollout.state == ROLLED_BACK


def test_continue_keeps_nobody_waiting_past_the_deadline_and_still_goes_on() -> None:
    policy: dict[str, Any] = {"action": CONTINUE, "deadline": 60}
    cluster = deployed(**policy)
    picky = wanted("v2-good", **policy)
    picky.task.placement.constraints.append("node.labels.disk==ssd")
    cluster.deploy(picky)
    cluster.run(61)
    rollout = cluster.rollout
    assert rollout.finished_at and rollout.deadline_passed
    assert "no suitable node" in rollout.reason and rollout.receipt.outcome == "deadline passed"
    assert images(cluster) == {"v1-good": 4}
    node = changed(cluster.world.nodes["n2"])
    node.spec.labels["disk"] = "ssd"
    cluster.world.put(node)
    cluster.settle()
    assert images(cluster) == {"v2-good": 4} and len(cluster.living()) == 4


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_deadline_that_passes_while_only_old_tasks_drain_turns_nothing_back(replicas: int) -> None:
    cluster = Cluster(1)
    cluster.deploy(wanted(replicas=1, deadline=60))
    cluster.settle()
    old = cluster.serving()[0]
    cluster.deploy(wanted("v2-good", replicas=replicas, deadline=60))
    for _ in range(700):
        cluster.converge()
        cluster.schedule()
        for task in cluster.living():
            if task.id != old.id:  # its connections go on and on
                cluster.agent(task.id)
        cluster.acknowledge_all()
        cluster.drain()
        cluster.now += 0.1
    rollout = cluster.rollout
    assert rollout.state == COMPLETED and rollout.deadline_passed and rollout.generation == 0
    assert rollout.reason == "the deadline of 60 s passed while 1 old task was still draining"
    cluster.settle()
    assert images(cluster) == ({"v2-good": 1} if replicas else {}) and len(cluster.living()) == replicas


def manual_rollback(cluster: Cluster) -> None:
    rollout = cluster.deploy(cluster.service.previous_spec)
    back = changed(cluster.world.rollouts[rollout.id])
    back.kind = pb.ROLLOUT_KIND_ROLLBACK
    cluster.world.put(back)


def test_a_manual_rollback_completes() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.settle()
    manual_rollback(cluster)
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.receipt.replaced == 4
    assert images(cluster) == {"v1-good": 4}


def test_a_manual_rollback_that_fails_pauses() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.settle()
    manual_rollback(cluster)
    cluster.run(1)
    cluster.fail(cluster.rollout.slots[0].new_task_id)
    cluster.run(5)
    assert cluster.rollout.state == PAUSED and cluster.rollout.failed


def test_an_automatic_rollback_that_fails_pauses_and_tells_both_reasons() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(7)
    cluster.fail(cluster.rollout.slots[1].new_task_id)
    cluster.run(0.1)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK
    back = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_MONITORING)
    cluster.fail(back)
    cluster.run(1)
    assert cluster.rollout.state == PAUSED
    assert "then rolling back failed: web." in cluster.rollout.reason
    assert cluster.rollout.failures == 2


def test_an_automatic_rollback_has_a_deadline_of_its_own() -> None:
    cluster = deployed()
    picky = wanted()
    picky.rollback.deadline = 100
    picky.task.container.image = "v2-good"
    cluster.deploy(picky)
    cluster.settle()
    picky.task.container.image = "v3-good"
    cluster.deploy(picky)
    cluster.run(7)
    for node in list(cluster.world.nodes):  # nothing can be placed any more
        cluster.set_availability(node, spec.NODE_AVAILABILITY_PAUSE)
    cluster.fail(cluster.rollout.slots[1].new_task_id)
    cluster.run(99)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK
    cluster.run(2)
    assert cluster.rollout.state == PAUSED and not cluster.rollout.deadline_passed
    assert "then rolling back failed: the deadline of 100 s passed" in cluster.rollout.reason


def test_a_stale_failure_of_the_old_version_is_not_blamed_on_the_rollback() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-hangs"))
    cluster.run(1)
    cluster.fail(cluster.of_slot(4)[0].id)
    cluster.settle()
    assert cluster.rollout.state == ROLLED_BACK
    assert images(cluster) == {"v1-good": 4}
