from __future__ import annotations

import random

from tests.support import build
from tests.support.cluster import Cluster
from tests.support.world import FakeAcks, FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator import converge
from pyswarm_manager.plan import Delete, changed


def deployed() -> Cluster:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(replicas=2, task=build.task_spec("v1-good")))
    cluster.settle()
    return cluster


def test_every_stage_of_every_task_is_told() -> None:
    cluster = deployed()
    cluster.deploy(build.service_spec(replicas=2, task=build.task_spec("v2-good")))
    for _ in range(200):  # each step of each task at a time of its own
        cluster.now += 0.25
        cluster.round()
    receipt = cluster.rollout.receipt
    new = [row for row in receipt.tasks if row.is_new]
    old = [row for row in receipt.tasks if not row.is_new]
    assert {row.name for row in new} == {row.name for row in old} == {"web.1", "web.2"}
    for row in new:
        assert row.created_at < row.started_at < row.healthy_at < row.in_balancers_at + 0.25
        assert not row.leaving_at and row.node in ("n1", "n2", "n3")
    for row in old:
        assert row.leaving_at < row.out_of_balancers_at + 0.25 < row.stopped_at + 0.5
    assert (receipt.replaced, receipt.failures, receipt.outcome) == (2, 0, "completed")


def test_what_was_counted_on_connections_is_summed_up() -> None:
    cluster = deployed()
    cluster.deploy(build.service_spec(replicas=2, task=build.task_spec("v2-good")))
    for number in range(200):
        for task in cluster.living():
            if task.leaving and not task.status.HasField("drain"):
                told = changed(task)
                told.status.drain.CopyFrom(
                    pb.DrainReport(redirected_at=cluster.now, late_connections=0, open_at_stop=number + 1, resets=2)
                )
                cluster.world.put(told)
        cluster.now += 0.25
        cluster.round()
    receipt = cluster.rollout.receipt
    assert (receipt.late_connections, receipt.resets) == (0, 4)
    assert receipt.open_at_stop == sum(row.drain.open_at_stop for row in receipt.tasks) > 0


def test_the_figures_of_a_task_are_stored_before_its_object_goes() -> None:
    cluster = deployed()
    cluster.deploy(build.service_spec(replicas=0, task=build.task_spec("v1-good")))
    checked = 0
    for _ in range(100):
        plan = cluster.converge(steps=0)
        for number, step in enumerate(plan.steps):
            deleted = [w.message.id for w in step if isinstance(w, Delete)]
            cluster.world.apply(type(plan)(steps=(step,)))
            told = {row.task_id: row for row in cluster.rollout.receipt.tasks}
            for task_id in deleted:
                assert told[task_id].stopped_at and told[task_id].out_of_balancers_at, f"step {number}"
                checked += 1
        for task_id in list(cluster.world.tasks):
            cluster.agent(task_id)
        cluster.acknowledge_all()
        cluster.drain()
    assert checked == 2 and cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED


def test_a_rollout_is_not_written_for_every_timestamp() -> None:
    cluster = deployed()
    cluster.deploy(build.service_spec(replicas=2, task=build.task_spec("v2-good")))
    cluster.run(0.1)
    version = cluster.rollout.version
    task = changed(cluster.serving()[0])
    task.status.message = "another word"
    task.status.timings.image_at = cluster.now
    cluster.world.put(task)
    assert not cluster.converge()
    assert cluster.rollout.version == version


def test_the_rollout_of_a_huge_service_fits_into_the_store() -> None:
    replicas, now, world = 10_000, 100.0, FakeWorld()
    service = build.service(build.service_spec(replicas=replicas, task=build.task_spec("v2-good")), rollout_id="r")
    rollout = build.rollout(service, now=now, from_version=1)
    tasks = []
    for number in range(1, replicas + 1):
        went = build.task(f"{number:025}", service, slot=number, state=pb.TASK_STATE_SHUTDOWN, created_at=1)
        went.spec.container.image = "v1-good"
        went.desired_state, went.leaving_at = pb.TASK_STATE_SHUTDOWN, now
        went.status.drain.open_at_stop = 1
        came = build.task(f"{number:020}.came", service, slot=number, node_id="n1", state=pb.TASK_STATE_RUNNING)
        came.rollout_id, came.balanced_at = "r", now
        came.status.timings.healthy_at = now
        rollout.slots.add(slot=number, old_task_id=went.id)
        tasks += [went, came]
    for start in range(0, len(tasks), 100):
        world.put(*tasks[start : start + 100])
    world.put(build.node("n1"))
    world.put(service, rollout)
    world.apply(converge.plan(world, FakeAcks(), service.id, now, random.Random(1)))
    stored = world.rollouts["r"]
    assert {p.phase for p in stored.slots} == {pb.SLOT_PHASE_MONITORING} and len(stored.slots) == replicas
    assert (stored.receipt.replaced, stored.receipt.open_at_stop) == (replicas, replicas)
    assert stored.ByteSize() < 1_500_000
