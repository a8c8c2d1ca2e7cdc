from __future__ import annotations

from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import Delete


def wanted(image: str = "v1-good", replicas: int = 2) -> spec.ServiceSpec:
    return build.service_spec(replicas=replicas, task=build.task_spec(image))


def deployed() -> Cluster:
    cluster = Cluster(1)
    cluster.deploy(wanted())
    cluster.settle()
    return cluster


def test_five_dead_tasks_are_kept_per_slot_the_newest() -> None:
    cluster = deployed()
    for version in range(2, 10):
        cluster.deploy(wanted(f"v{version}-good"))
        cluster.settle()
    for slot in (1, 2):
        assert [t.spec.container.image for t in cluster.of_slot(slot)] == [f"v{n}-good" for n in range(4, 10)]


def test_a_task_whose_address_a_balancer_may_still_know_is_kept() -> None:
    cluster = deployed()
    cluster.cut_node("n3")  # registered, and silent
    for version in range(2, 10):
        cluster.deploy(wanted(f"v{version}-good"))
        cluster.settle()
    held = [t for t in cluster.world.tasks.values() if t.status.state == pb.TASK_STATE_SHUTDOWN]
    assert len(held) == 16 and not any(t.addresses_free for t in held)
    cluster.heal_node("n3")
    cluster.settle()
    assert len(cluster.world.tasks) == 2 * 6


def test_ten_rollouts_are_kept() -> None:
    cluster = deployed()
    for version in range(2, 15):
        cluster.deploy(wanted(f"v{version}-good"))
        cluster.settle()
    assert sorted(r.to_version for r in cluster.world.rollouts.values()) == list(range(5, 15))


def test_the_failed_task_that_a_rollout_names_is_kept_though_its_slot_is_gone() -> None:
    cluster = deployed()
    worse = wanted(replicas=3)
    worse.task.container.image = "v2-unknown"
    cluster.deploy(worse)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK
    assert cluster.world.tasks[cluster.rollout.failed_task_id].status.error == "no such tag"


def test_the_service_goes_last_of_all() -> None:
    cluster = deployed()
    cluster.world.put(pb.RegistryAuth(id="svc"))
    cluster.remove()
    kinds = []
    for _ in range(50):
        plan = cluster.converge()
        kinds += [type(w.message).__name__ for step in plan.steps for w in step if isinstance(w, Delete)]
        for task in list(cluster.world.tasks.values()):
            assert task.desired_state == pb.TASK_STATE_REMOVE
            cluster.agent(task.id)
        cluster.acknowledge_all()
        cluster.drain()
    assert kinds == ["Task", "Task", "Rollout", "RegistryAuth", "Service"]


def test_a_removal_waits_for_a_node_that_is_down() -> None:
    cluster = deployed()
    cluster.cut_node("n1")
    cluster.remove()
    cluster.settle()
    assert "svc" in cluster.world.services
    cluster.heal_node("n1")
    cluster.settle()
    assert not cluster.world.services and not cluster.world.tasks


def test_a_removal_ends_when_the_node_that_is_down_is_removed() -> None:
    cluster = deployed()
    cluster.cut_node("n1")
    cluster.remove()
    cluster.settle()
    cluster.remove_node("n1")
    cluster.settle()
    assert not cluster.world.services and not cluster.world.tasks


def test_tasks_without_a_service_go_too() -> None:
    cluster = deployed()
    cluster.world.delete(cluster.service)
    cluster.settle()
    assert not cluster.world.tasks and not cluster.world.rollouts


def test_a_rollout_is_cut_short_by_a_removal() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-hangs"))
    cluster.run(1)
    cluster.remove()
    cluster.settle()
    assert not cluster.world.services and not cluster.world.tasks and not cluster.world.rollouts
