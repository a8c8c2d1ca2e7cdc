from __future__ import annotations

from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def deployed(replicas: int, nodes: int = 3) -> Cluster:
    cluster = Cluster(1, nodes)
    scale(cluster, replicas)
    cluster.settle()
    return cluster


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.deploy(build.service_spec(replicas=replicas, task=build.task_spec("v1-good")))


def slots(cluster: Cluster) -> list[int]:
    return sorted(t.slot for t in cluster.wanted())


def test_scaling_down_takes_the_fullest_node_and_the_highest_number() -> None:
    cluster = deployed(5)  # n1 and n2 have two each
    lowest = {node: min(t.slot for t in cluster.serving() if t.node_id == node) for node in ("n1", "n2", "n3")}
    scale(cluster, 3)
    cluster.settle()
    assert {t.node_id: t.slot for t in cluster.serving()} == lowest
    assert len(cluster.living()) == 3


def test_scaling_down_takes_what_does_not_serve_first() -> None:
    cluster = deployed(3)
    cluster.set_health(cluster.of_slot(1)[0].id, pb.HEALTH_UNHEALTHY)
    scale(cluster, 2)
    cluster.settle()
    assert slots(cluster) == [2, 3]


def test_scaling_down_takes_what_must_leave_its_node_anyway() -> None:
    cluster = deployed(3)
    leaver = next(t for t in cluster.serving() if t.node_id == "n2")
    cluster.set_availability("n2", spec.NODE_AVAILABILITY_DRAIN)
    scale(cluster, 2)
    cluster.settle()
    assert leaver.slot not in slots(cluster)
    assert len(cluster.world.tasks) == 2, "nobody was moved"


def test_going_back_to_fewer_replicas_keeps_the_tasks_of_the_old_version() -> None:
    cluster = deployed(4)
    cluster.set_health(cluster.of_slot(1)[0].id, pb.HEALTH_UNHEALTHY)
    scale(cluster, 3)
    cluster.settle()
    before = {t.id for t in cluster.serving()}
    cluster.deploy(build.service_spec(replicas=4, task=build.task_spec("v2-good")))
    cluster.run(4.9)
    assert cluster.of_slot(1)[-1].spec.container.image == "v2-good", "the fresh slot has the lowest number"
    cluster.now += 0.2
    while (second := cluster.of_slot(2)[-1]).status.state != pb.TASK_STATE_STARTING:
        cluster.converge()
        cluster.schedule()
        cluster.agent(second.id)
    cluster.fail(second.id)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK
    assert before == {t.id for t in cluster.living()}


def test_scaling_up_fills_the_lowest_free_numbers() -> None:
    cluster = deployed(3)
    cluster.set_health(cluster.of_slot(1)[0].id, pb.HEALTH_UNHEALTHY)
    scale(cluster, 2)
    cluster.settle()
    before = {t.id for t in cluster.serving()}
    scale(cluster, 4)
    cluster.converge()
    assert slots(cluster) == [1, 2, 3, 4]
    cluster.settle()
    assert before < {t.id for t in cluster.serving()}
    assert cluster.rollout.receipt.replaced == 0


def test_no_replicas_at_all() -> None:
    cluster = deployed(3)
    scale(cluster, 0)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert not cluster.world.tasks, "slots that are no more keep no history"
    scale(cluster, 2)
    cluster.settle()
    assert slots(cluster) == [1, 2]


def global_service(constraint: str = "node.labels.zone!=nowhere") -> spec.ServiceSpec:
    return build.service_spec(
        replicas=0, mode=spec.SERVICE_MODE_GLOBAL, task=build.task_spec("v1-good", constraints=(constraint,))
    )


def everywhere(cluster: Cluster) -> list[str]:
    return sorted(t.node_id for t in cluster.wanted())


def test_a_global_service_runs_once_on_each_node() -> None:
    cluster = Cluster(1)
    cluster.deploy(global_service())
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert everywhere(cluster) == ["n1", "n2", "n3"]
    assert all(t.slot == 0 for t in cluster.serving())
    cluster.add_node("n4", 4)
    cluster.settle()
    assert everywhere(cluster) == ["n1", "n2", "n3", "n4"]


def test_a_global_service_leaves_drained_nodes_and_keeps_to_its_constraints() -> None:
    cluster = Cluster(1)
    cluster.deploy(global_service("node.labels.zone==b"))  # n1, n3
    cluster.settle()
    assert everywhere(cluster) == ["n1", "n3"]
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    cluster.settle()
    assert everywhere(cluster) == ["n3"]
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_ACTIVE)
    cluster.settle()
    assert everywhere(cluster) == ["n1", "n3"]


def test_a_paused_node_keeps_its_global_task_and_gets_none() -> None:
    cluster = Cluster(1, nodes=2)
    cluster.set_availability("n2", spec.NODE_AVAILABILITY_PAUSE)
    cluster.deploy(global_service())
    cluster.settle()
    assert everywhere(cluster) == ["n1"]
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_PAUSE)
    cluster.settle()
    assert everywhere(cluster) == ["n1"]


def test_a_global_task_on_a_node_that_was_away_is_still_there_and_is_then_updated() -> None:
    cluster = Cluster(1)
    cluster.deploy(global_service())
    cluster.settle()
    away = next(t for t in cluster.serving() if t.node_id == "n1")
    cluster.cut_node("n1")
    cluster.settle()
    wanted = global_service()
    wanted.task.container.image = "v2-good"
    cluster.deploy(wanted)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert not cluster.world.tasks[away.id].leaving
    cluster.heal_node("n1")
    cluster.settle()
    assert everywhere(cluster) == ["n1", "n2", "n3"]
    assert {t.spec.container.image for t in cluster.living()} == {"v2-good"}


def test_a_removed_node_takes_its_global_task_along() -> None:
    cluster = Cluster(1)
    cluster.deploy(global_service())
    cluster.settle()
    cluster.remove_node("n1")
    cluster.settle()
    assert everywhere(cluster) == ["n2", "n3"]
    assert len(cluster.world.tasks) == 2
