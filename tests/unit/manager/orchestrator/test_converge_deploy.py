"""The usual course of things: first deploy, update, failed update, scaling, removal."""

from __future__ import annotations

from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb


def deployed(replicas: int = 3, seed: int = 1) -> Cluster:
    cluster = Cluster(seed)
    cluster.deploy(build.service_spec(replicas=replicas, task=build.task_spec("v1-good")))
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    return cluster


def images(cluster: Cluster) -> list[str]:
    return sorted(t.spec.container.image for t in cluster.serving())


def test_first_deploy_fills_every_slot_at_once() -> None:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(replicas=3, task=build.task_spec("v1-good")))
    cluster.converge()
    assert sorted(t.slot for t in cluster.wanted()) == [1, 2, 3]
    assert all(t.desired_state == pb.TASK_STATE_RUNNING and t.rollout_id for t in cluster.wanted())
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert images(cluster) == ["v1-good"] * 3
    assert cluster.rollout.receipt.outcome == "completed"
    assert [row.is_new for row in cluster.rollout.receipt.tasks] == [True] * 3


def test_update_replaces_every_task_and_the_receipt_tells_of_each() -> None:
    cluster = deployed()
    old = {t.id for t in cluster.serving()}
    cluster.deploy(build.service_spec(replicas=3, task=build.task_spec("v2-good")))
    cluster.settle()
    rollout = cluster.rollout
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert images(cluster) == ["v2-good"] * 3
    assert rollout.receipt.replaced == 3
    gone = {row.task_id: row for row in rollout.receipt.tasks if not row.is_new}
    assert set(gone) == old
    assert all(row.leaving_at and row.out_of_balancers_at and row.stopped_at for row in gone.values())
    assert all(row.in_balancers_at and row.healthy_at for row in rollout.receipt.tasks)


def test_failed_update_ends_where_it_began() -> None:
    cluster = deployed()
    before, tasks = cluster.service.spec, {t.id for t in cluster.serving()}
    cluster.deploy(build.service_spec(replicas=3, task=build.task_spec("v2-crashes")))
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK
    assert cluster.service.spec.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)
    assert {t.id for t in cluster.serving()} == tasks
    assert {t.id for t in cluster.living()} == tasks
    assert cluster.rollout.failed and not cluster.rollout.deadline_passed
    assert "exit code 3" in cluster.rollout.reason
    assert cluster.world.tasks[cluster.rollout.failed_task_id].status.state == pb.TASK_STATE_FAILED


def test_removed_service_leaves_nothing() -> None:
    cluster = deployed()
    cluster.world.put(pb.RegistryAuth(id="svc", host="registry.lab"))
    cluster.remove()
    cluster.settle()
    assert not (cluster.world.services or cluster.world.tasks or cluster.world.rollouts or cluster.world.auths)
