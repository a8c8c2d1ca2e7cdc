"""What happens to a slot whose task should be another one, outside of rollouts."""

from __future__ import annotations

from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import changed


def deployed(wanted: spec.ServiceSpec | None = None, nodes: int = 3) -> Cluster:
    cluster = Cluster(1, nodes)
    cluster.deploy(wanted or build.service_spec(task=build.task_spec("v1-good")))
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    return cluster


def task_on(cluster: Cluster, node: str) -> pb.Task:
    return next(t for t in cluster.serving() if t.node_id == node)


def test_a_task_that_fails_gets_a_successor_after_the_delay() -> None:
    cluster = deployed()
    dead = cluster.of_slot(2)[0]
    cluster.fail(dead.id)
    cluster.converge()
    old, new = cluster.of_slot(2)
    assert old.desired_state == pb.TASK_STATE_SHUTDOWN and not old.leaving
    assert new.desired_state == pb.TASK_STATE_READY and new.start_after == cluster.now + 1
    assert (new.predecessor_id, new.restarts, new.rollout_id) == (old.id, 1, "")
    cluster.run(0.5)
    assert cluster.world.tasks[new.id].status.state == pb.TASK_STATE_READY
    cluster.run(0.6)
    assert cluster.world.tasks[new.id].status.state == pb.TASK_STATE_RUNNING


def test_a_crash_loop_backs_off_and_keeps_five_of_its_dead() -> None:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(replicas=1, task=build.task_spec("v1-crashes")))
    cluster.run(3600)
    tasks = cluster.of_slot(1)
    named = cluster.rollout.failed_task_id  # kept for its sake
    assert len([t for t in tasks if t.status.state == pb.TASK_STATE_FAILED and t.id != named]) == 5
    # 1+2+4+…+256 s, then one every 300 s
    assert tasks[-1].restarts == 9 + (3600 - 511) // 300 + 1
    assert tasks[-1].start_after - tasks[-1].created_at == 300


def test_when_attempts_are_used_up_the_slot_keeps_its_last_task() -> None:
    wanted = build.service_spec(replicas=1, task=build.task_spec("v1-good"))
    wanted.task.restart.max_attempts = 2
    cluster = deployed(wanted)
    for _ in range(3):
        cluster.fail(cluster.serving()[0].id)
        cluster.run(10)
    assert not cluster.living()
    last = cluster.of_slot(1)[-1]
    assert last.desired_state == pb.TASK_STATE_RUNNING and last.restarts == 2
    cluster.run(1e6)
    assert cluster.of_slot(1)[-1].id == last.id


def test_a_new_request_is_a_new_chance_for_a_slot_that_was_given_up() -> None:
    wanted = build.service_spec(replicas=1, task=build.task_spec("v1-good"))
    wanted.task.restart.condition = spec.RESTART_CONDITION_NONE
    cluster = deployed(wanted)
    cluster.fail(cluster.serving()[0].id)
    cluster.run(100)
    assert not cluster.living()
    wanted.replicas = 2
    cluster.deploy(wanted)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert len(cluster.serving()) == 2


def test_a_job_that_completes_is_done() -> None:
    wanted = build.service_spec(replicas=2, task=build.task_spec("v1-good"), update=build.policy(monitor=60))
    wanted.task.restart.condition = spec.RESTART_CONDITION_ON_FAILURE
    cluster = Cluster(1)
    cluster.deploy(wanted)
    cluster.run(1)
    for task in cluster.serving():
        cluster.fail(task.id, pb.TASK_STATE_COMPLETE)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert not cluster.living() and len(cluster.world.tasks) == 2


def test_an_unhealthy_task_leaves_by_the_ordered_drain_while_its_successor_starts() -> None:
    cluster = deployed()
    sick = cluster.of_slot(1)[0]
    cluster.set_health(sick.id, pb.HEALTH_UNHEALTHY)
    cluster.converge()
    old, new = cluster.of_slot(1)
    assert old.desired_state == pb.TASK_STATE_SHUTDOWN and old.leaving and not old.released
    assert new.desired_state == pb.TASK_STATE_RUNNING
    cluster.settle()
    assert len(cluster.serving()) == len(cluster.living()) == 3
    assert cluster.world.tasks[old.id].status.state == pb.TASK_STATE_SHUTDOWN


def test_an_unhealthy_task_that_may_not_be_restarted_stays_and_may_recover() -> None:
    wanted = build.service_spec(task=build.task_spec("v1-good"))
    wanted.task.restart.condition = spec.RESTART_CONDITION_NONE
    cluster = deployed(wanted)
    sick = cluster.of_slot(1)[0]
    cluster.set_health(sick.id, pb.HEALTH_UNHEALTHY)
    cluster.settle()
    assert [t.id for t in cluster.of_slot(1)] == [sick.id]
    cluster.set_health(sick.id, pb.HEALTH_HEALTHY)
    assert len(cluster.serving()) == 3


def test_the_tasks_of_a_node_that_is_down_run_elsewhere_at_once() -> None:
    cluster = deployed()
    lost = task_on(cluster, "n1")
    cluster.cut_node("n1")
    cluster.settle()
    assert len(cluster.serving()) == 3
    old = cluster.world.tasks[lost.id]
    assert old.status.state == pb.TASK_STATE_RUNNING and old.leaving and old.released and not old.addresses_free
    assert all(t.restarts == 0 for t in cluster.serving())
    cluster.heal_node("n1")
    cluster.settle()
    assert cluster.world.tasks[lost.id].status.state == pb.TASK_STATE_SHUTDOWN
    assert len(cluster.living()) == 3


def test_the_tasks_of_a_node_that_was_removed_are_orphaned() -> None:
    cluster = deployed()
    lost = task_on(cluster, "n1")
    cluster.cut_node("n1")
    cluster.converge()
    cluster.remove_node("n1")
    cluster.settle()
    assert cluster.world.tasks[lost.id].status.state == pb.TASK_STATE_ORPHANED
    assert cluster.world.tasks[lost.id].addresses_free
    assert len(cluster.serving()) == len(cluster.living()) == 3


def test_a_node_removed_without_warning_takes_its_tasks_along() -> None:
    cluster = deployed()
    lost = task_on(cluster, "n1")
    cluster.remove_node("n1")
    cluster.converge()
    assert cluster.world.tasks[lost.id].status.state == pb.TASK_STATE_ORPHANED
    cluster.settle()
    assert len(cluster.serving()) == 3


def test_draining_a_node_starts_the_replacement_first() -> None:
    cluster = deployed()
    old = task_on(cluster, "n1")
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    while not cluster.world.tasks[old.id].leaving:
        assert len(cluster.serving()) >= 3
        cluster.round()
    successor = next(t for t in cluster.serving() if t.predecessor_id == old.id)
    assert successor.balanced_at
    cluster.settle()
    assert not [t for t in cluster.living() if t.node_id == "n1"]
    assert len(cluster.serving()) == 3


def test_a_drained_task_that_fits_nowhere_else_stays_and_the_reason_is_to_be_seen() -> None:
    wanted = build.service_spec(replicas=1, task=build.task_spec("v1-good", constraints=("node.hostname==n1",)))
    cluster = deployed(wanted)
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    cluster.settle()
    assert [t.node_id for t in cluster.serving()] == ["n1"]
    waiting = next(t for t in cluster.living() if not t.node_id)
    assert waiting.status.message == "no suitable node"
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_ACTIVE)
    cluster.settle()
    assert [t.node_id for t in cluster.living()] == ["n1"], "the replacement is not needed any more"


def test_a_changed_label_moves_what_it_must_and_nothing_else() -> None:
    wanted = build.service_spec(task=build.task_spec("v1-good", constraints=("node.labels.zone!=nowhere",)))
    cluster = deployed(wanted)
    others = {t.id for t in cluster.serving() if t.node_id != "n1"}
    node = changed(cluster.world.nodes["n1"])
    node.spec.labels["zone"] = "nowhere"
    cluster.world.put(node)
    cluster.settle()
    assert len(cluster.serving()) == 3
    assert others <= {t.id for t in cluster.serving()}
    assert not [t for t in cluster.living() if t.node_id == "n1"]


def test_moves_respect_parallelism() -> None:
    wanted = build.service_spec(replicas=9, task=build.task_spec("v1-good"), update=build.policy(parallelism=2))
    cluster = deployed(wanted)
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    for _ in range(3):
        cluster.converge()
        assert len(cluster.wanted()) == 11
    cluster.settle()
    assert len(cluster.serving()) == len(cluster.living()) == 9


def test_a_replacement_that_must_move_on_itself_is_replaced_in_its_turn() -> None:
    cluster = deployed(build.service_spec(replicas=1, task=build.task_spec("v1-good")))
    (old,) = cluster.serving()
    cluster.set_availability(old.node_id, spec.NODE_AVAILABILITY_DRAIN)
    cluster.converge()
    cluster.schedule()
    second = cluster.of_slot(1)[-1]
    cluster.set_availability(second.node_id, spec.NODE_AVAILABILITY_DRAIN)
    cluster.settle()
    (last,) = cluster.living()
    assert last.node_id not in (old.node_id, second.node_id)


def test_stop_first_moves_prepare_before_they_stop() -> None:
    wanted = build.service_spec(task=build.task_spec("v1-good"))
    wanted.update.order = spec.UPDATE_ORDER_STOP_FIRST
    cluster = deployed(wanted)
    old = task_on(cluster, "n1")
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    cluster.converge()
    new = cluster.of_slot(old.slot)[-1]
    assert new.desired_state == pb.TASK_STATE_READY
    while cluster.world.tasks[new.id].status.state < pb.TASK_STATE_READY:
        assert not cluster.world.tasks[old.id].leaving
        cluster.round()
    cluster.converge()
    assert cluster.world.tasks[old.id].leaving
    assert cluster.world.tasks[new.id].desired_state == pb.TASK_STATE_READY
    cluster.settle()
    assert len(cluster.serving()) == len(cluster.living()) == 3


def test_twins_in_a_slot_come_down_to_the_one_that_serves() -> None:
    """An agent without a manager has filled the slot, and so has the manager."""
    cluster = deployed()
    dead = cluster.of_slot(1)[0]
    cluster.fail(dead.id)
    cluster.converge()
    adopted = build.task(
        "adopted", cluster.service, slot=1, node_id=dead.node_id, state=pb.TASK_STATE_RUNNING, created_at=cluster.now
    )
    adopted.status.timings.healthy_at = cluster.now
    adopted.predecessor_id = dead.id
    cluster.world.put(adopted)
    cluster.settle()
    assert [t.id for t in cluster.living() if t.slot == 1] == ["adopted"]


def test_an_adopted_task_of_an_older_spec_is_brought_up_to_date() -> None:
    cluster = deployed()
    dead = cluster.of_slot(1)[0]
    adopted = changed(dead)
    adopted.id, adopted.version = "adopted", 0
    adopted.spec.container.image = "v0-good"
    cluster.world.put(adopted)
    cluster.fail(dead.id)
    cluster.settle()
    assert {t.spec.container.image for t in cluster.living()} == {"v1-good"}
    assert len(cluster.serving()) == 3


def test_a_restart_does_not_change_the_version_that_a_paused_rollout_left() -> None:
    wanted = build.service_spec(task=build.task_spec("v1-good"), update=build.policy(action=spec.FAILURE_ACTION_PAUSE))
    cluster = deployed(wanted)
    wanted.task.container.image = "v2-crashes"
    cluster.deploy(wanted)
    cluster.settle(until=10)
    assert cluster.rollout.state == pb.ROLLOUT_STATE_PAUSED
    cluster.fail(cluster.of_slot(3)[0].id)
    cluster.run(20)
    assert [t.spec.container.image for t in cluster.serving() if t.slot == 3] == ["v1-good"]
    assert cluster.of_slot(3)[-1].spec_version == 1


def test_a_task_that_was_never_assigned_is_cancelled_without_an_agent() -> None:
    wanted = build.service_spec(replicas=2, task=build.task_spec("v1-good", constraints=("node.hostname==n9",)))
    cluster = Cluster(1)
    cluster.deploy(wanted)
    cluster.run(1)
    wanted.replicas = 0
    cluster.deploy(wanted)
    cluster.converge()
    assert all(t.addresses_free and t.status.state == pb.TASK_STATE_SHUTDOWN for t in cluster.world.tasks.values())
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert not cluster.living()


def test_a_task_carries_what_its_service_was_called_labelled_and_publishes() -> None:
    wanted = build.service_spec(task=build.task_spec("v1-good"))
    wanted.labels["team"] = "blue"
    wanted.ports.add(target=80, published=8080)
    cluster = Cluster(1)
    cluster.deploy(wanted)
    cluster.converge()
    task = cluster.of_slot(1)[0]
    assert (task.service_name, dict(task.service_labels), task.spec_version) == ("web", {"team": "blue"}, 1)
    assert list(task.ports) == list(wanted.ports)


def test_stop_first_does_not_wait_for_a_task_on_a_node_that_is_down() -> None:
    wanted = build.service_spec(replicas=1, task=build.task_spec("v1-good"))
    wanted.update.order = spec.UPDATE_ORDER_STOP_FIRST
    cluster = deployed(wanted)
    wanted.task.container.image = "v2-good"
    cluster.deploy(wanted)
    while not any(t.leaving for t in cluster.living()):
        cluster.converge()
        cluster.schedule()
        for task in cluster.living():
            cluster.agent(task.id)
    old, new = cluster.of_slot(1)
    assert old.leaving and new.desired_state == pb.TASK_STATE_READY and new.node_id != old.node_id
    cluster.cut_node(old.node_id)
    cluster.settle()
    assert [t.id for t in cluster.serving()] == [new.id]
    assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED


def test_a_host_port_is_taken_over_from_a_node_that_is_down() -> None:
    wanted = build.service_spec(replicas=2, task=build.task_spec("v1-good"))
    wanted.task.host_ports.add(target=80, published=8080, mode=spec.PUBLISH_MODE_HOST)
    cluster = deployed(wanted)
    cluster.cut_node("n1")
    cluster.settle()
    assert len(cluster.serving()) == 2
