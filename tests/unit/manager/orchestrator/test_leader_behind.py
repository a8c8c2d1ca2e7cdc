"""Another manager leads, whose clock is an hour behind that of the one before: nothing waits for that hour."""

from __future__ import annotations

from tests.support import build
from tests.support.cluster import Cluster
from tests.unit.manager.rollout.build import COMPLETED, count, deployed, wanted

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

HOUR = 3600.0


def phases(cluster: Cluster) -> list[str]:
    return [pb.SlotPhase.Name(p.phase).removeprefix("SLOT_PHASE_") for p in cluster.rollout.slots]


def test_a_slot_is_watched_for_its_monitor_time_again() -> None:
    cluster = deployed(monitor=5)
    cluster.deploy(wanted("v2-good", replicas=1, monitor=5))
    while phases(cluster) != ["MONITORING"]:
        cluster.run(0.5)
    cluster.now -= HOUR
    cluster.run(4)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING
    cluster.run(2)
    assert cluster.rollout.state == COMPLETED


def test_a_rollout_has_no_longer_than_its_deadline() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-hangs", deadline=60))
    cluster.run(20)
    cluster.now -= HOUR
    cluster.run(55)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_RUNNING
    cluster.run(10)
    assert cluster.rollout.deadline_passed


def test_the_next_batch_waits_for_the_delay_at_most() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good", monitor=1, delay=30))
    while phases(cluster)[:2] != ["DONE", "WAITING"]:
        cluster.run(0.5)
    cluster.now -= HOUR
    cluster.run(25)
    assert count(cluster, "v2-good") == 1
    cluster.run(10)
    assert count(cluster, "v2-good") == 2


def test_a_task_that_waits_for_its_start_waits_no_longer_than_the_policy_says() -> None:
    cluster = Cluster(1)
    web = build.service_spec(replicas=1, task=build.task_spec("v1-good"))
    web.task.restart.delay = 20
    cluster.deploy(web)
    cluster.settle()
    cluster.fail(cluster.serving()[0].id)
    cluster.run(1)
    assert [task.start_after > cluster.now for task in cluster.wanted()] == [True]
    cluster.now -= HOUR
    cluster.run(18)
    assert not cluster.serving()
    cluster.run(4)
    assert cluster.serving()


def test_what_fails_again_and_again_backs_off_all_the_same() -> None:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(replicas=1, task=build.task_spec("v1-crashes")))
    cluster.run(200)
    before = len(cluster.started)
    cluster.now -= HOUR
    cluster.run(1300)  # at most 300 s apart by now; the ninth came after 255 s
    assert 4 <= len(cluster.started) - before <= 6
    tasks = cluster.of_slot(1)
    assert [task.restarts for task in tasks] == sorted({task.restarts for task in tasks}), "in the order of creation"


def test_what_cannot_be_prepared_is_tried_again_and_backs_off() -> None:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(replicas=1, task=build.task_spec("v1-unknown")))
    cluster.run(100)
    before = cluster.of_slot(1)[-1].restarts
    cluster.now -= HOUR
    cluster.run(1000)
    assert 2 <= cluster.of_slot(1)[-1].restarts - before <= 6


def test_a_window_of_restarts_begins_with_the_next_one_at_the_latest() -> None:
    cluster = Cluster(1)
    web = build.service_spec(replicas=1, task=build.task_spec("v1-good"))
    web.task.restart.CopyFrom(
        spec.RestartPolicy(condition=spec.RESTART_CONDITION_ANY, delay=1, max_attempts=2, window=600)
    )
    cluster.deploy(web)
    cluster.settle()
    cluster.fail(cluster.serving()[0].id)
    cluster.run(10)
    cluster.now -= HOUR
    for wait in (700, 10, 10):
        cluster.fail(cluster.serving()[0].id)
        cluster.run(wait)
    assert cluster.serving()
    cluster.fail(cluster.serving()[0].id)
    cluster.run(10)
    assert not cluster.serving(), "they are used up in this window"
