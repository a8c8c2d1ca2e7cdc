from __future__ import annotations

from tests.support import build
from tests.support.world import FakeAcks, FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.drain import stages
from pyswarm_manager.plan import Plan, changed

NOW = 1000.0
RUNNING, SHUTDOWN = pb.TASK_STATE_RUNNING, pb.TASK_STATE_SHUTDOWN


class Room:
    """Three nodes and one task on n1."""

    def __init__(self, state: pb.TaskState.ValueType = RUNNING) -> None:
        self.world, self.acks = FakeWorld(), FakeAcks()
        for number in (1, 2, 3):
            self.world.put(build.node(f"n{number}", number=number))
        task = build.task("t1", build.service(build.service_spec()), node_id="n1", state=state)
        task.addresses.add(network_id="default", address="10.128.64.2")
        if state == RUNNING:
            task.status.timings.healthy_at = 1
        self.world.put(task)

    @property
    def task(self) -> pb.Task:
        return self.world.tasks["t1"]

    def edit(self, **fields: object) -> None:
        task = changed(self.task)
        state = fields.pop("state", None)
        if state is not None:
            task.status.state = state  # type: ignore[assignment]
        for name, value in fields.items():
            setattr(task, name, value)
        self.world.put(task)

    def leave(self) -> None:
        self.edit(desired_state=SHUTDOWN, leaving=True, leaving_at=NOW)

    def node(self, name: str, **fields: object) -> None:
        node = changed(self.world.nodes[name])
        for field, value in fields.items():
            setattr(node, field, value)
        self.world.put(node)

    def confirm(self, *names: str, revision: int = 0) -> Plan:
        """These nodes have this revision (0 = the task's version); what follows is carried out."""
        for name in names:
            self.acks.revisions[name] = revision or self.task.version
        plan = stages.plan(self.world, self.acks, NOW)
        self.world.apply(plan)
        return plan


def test_what_was_confirmed_while_its_node_was_down_does_not_make_a_task_balanced() -> None:
    """Derived at the task's last version it was no endpoint, for its node was down then."""
    room = Room()
    room.node("n1", state=pb.NODE_STATE_DOWN, serving=False)
    room.edit()
    assert not room.confirm("n1", "n2", "n3")
    room.node("n1", state=pb.NODE_STATE_READY, serving=True)
    since = room.world.nodes["n1"].version
    assert since > room.task.version
    assert not room.confirm("n1", "n2", "n3"), "as endpoints were before the node came back"
    assert stages.awaited(room.world, room.acks) == dict.fromkeys(("n1", "n2", "n3"), since)
    assert room.confirm("n1", "n2", "n3", revision=since)
    assert room.task.balanced_at == NOW


def test_balanced_when_every_live_node_has_it() -> None:
    room = Room()
    assert not room.confirm("n1", "n2")
    assert not room.confirm("n3", revision=room.task.version - 1)
    assert room.confirm("n3")
    assert room.task.balanced_at == NOW
    assert not room.confirm("n1", "n2", "n3"), "once"


def test_nobody_waits_for_a_node_that_is_down_or_does_not_serve() -> None:
    room = Room()
    room.node("n2", state=pb.NODE_STATE_DOWN, serving=False)
    room.node("n3", serving=False)
    assert room.confirm("n1")
    assert room.task.balanced_at == NOW


def test_a_cluster_without_a_live_node_confirms_nothing() -> None:
    room = Room()
    for name in ("n1", "n2", "n3"):
        room.node(name, serving=False)
    assert not room.confirm("n1", "n2", "n3")


def test_only_an_endpoint_is_balanced() -> None:
    for state in (pb.TASK_STATE_STARTING, pb.TASK_STATE_READY):
        assert not Room(state).confirm("n1", "n2", "n3")
    sick = Room()
    task = changed(sick.task)
    task.status.health = pb.HEALTH_UNHEALTHY
    sick.world.put(task)
    assert not sick.confirm("n1", "n2", "n3")
    lost = Room()
    lost.node("n1", state=pb.NODE_STATE_DOWN, serving=False)
    assert not lost.confirm("n2", "n3")


def test_released_when_every_live_node_has_confirmed_that_it_left() -> None:
    room = Room()
    room.confirm("n1", "n2", "n3")
    room.leave()
    assert not room.confirm("n1", "n2")
    assert not room.task.released
    assert room.confirm("n3")
    assert room.task.released and room.task.released_at == room.task.out_of_balancers_at == NOW
    assert not room.task.addresses_free


def test_a_status_written_meanwhile_makes_it_wait_for_more() -> None:
    room = Room()
    room.leave()
    room.confirm("n1", "n2")
    before = room.task.version
    task = changed(room.task)
    task.status.message = "draining"
    room.world.put(task)
    assert not room.confirm("n3", revision=before)
    assert not room.confirm("n1", "n2")
    assert room.confirm("n3")
    assert room.task.released


def test_a_task_that_never_served_is_released_at_once() -> None:
    room = Room(pb.TASK_STATE_STARTING)
    room.leave()
    assert room.confirm()
    assert room.task.released and not room.task.out_of_balancers_at


def test_one_that_took_over_addresses_leaves_the_balancers_that_have_them() -> None:
    """From the task before: it must not be stopped earlier, though it never was healthy."""
    room = Room(pb.TASK_STATE_STARTING)
    room.edit(took_over=True)
    room.leave()
    assert not room.confirm("n1", "n2")
    assert room.confirm("n3")
    assert room.task.released and room.task.out_of_balancers_at


def test_a_leaving_task_on_a_node_that_is_down_is_released_by_the_others() -> None:
    room = Room()
    room.node("n1", state=pb.NODE_STATE_DOWN, serving=False)
    room.leave()
    assert not room.confirm("n2")
    assert room.confirm("n3")
    assert room.task.released and not room.task.addresses_free


def test_addresses_are_free_when_every_registered_node_has_confirmed() -> None:
    room = Room()
    room.node("n3", state=pb.NODE_STATE_DOWN, serving=False)
    room.leave()
    room.confirm("n1", "n2")
    room.edit(state=SHUTDOWN)
    assert not room.confirm("n1", "n2"), "the node that is down may still send to it"
    assert room.confirm("n3")
    assert room.task.addresses_free
    assert not room.confirm("n1", "n2", "n3")


def test_a_node_that_is_removed_is_not_waited_for() -> None:
    room = Room()
    room.node("n3", state=pb.NODE_STATE_DOWN, serving=False)
    room.edit(state=pb.TASK_STATE_FAILED)
    assert not room.confirm("n1", "n2")
    room.world.delete(room.world.nodes["n3"])
    assert room.confirm()
    assert room.task.addresses_free


def test_a_task_that_died_by_itself_gives_its_address_back_too() -> None:
    room = Room()
    room.edit(state=pb.TASK_STATE_FAILED)
    assert not room.confirm("n1", "n2")
    assert room.confirm("n3")
    assert room.task.addresses_free and not room.task.released


def test_a_task_that_died_while_leaving_gets_all_that_is_due_in_one_write() -> None:
    room = Room()
    room.leave()
    room.edit(state=pb.TASK_STATE_FAILED)
    plan = room.confirm("n1", "n2", "n3")
    assert len(plan.steps) == 1
    assert room.task.released and room.task.out_of_balancers_at == NOW and room.task.addresses_free


def test_a_task_without_addresses_has_none_to_wait_for() -> None:
    room = Room(pb.TASK_STATE_REJECTED)
    task = changed(room.task)
    del task.addresses[:]
    room.world.put(task)
    assert room.confirm()
    assert room.task.addresses_free


def test_a_living_task_keeps_its_addresses() -> None:
    room = Room()
    room.leave()
    room.confirm("n1", "n2", "n3")
    assert not room.confirm("n1", "n2", "n3")
    assert room.task.released and not room.task.addresses_free


def test_each_write_is_a_step_of_its_own() -> None:
    room = Room()
    other = changed(room.task)
    other.id, other.version = "t2", 0
    room.world.put(other)
    plan = room.confirm("n1", "n2", "n3", revision=room.world.revision)
    assert [len(step) for step in plan.steps] == [1, 1]


def test_awaited_names_what_each_node_still_owes() -> None:
    room = Room()
    version = room.task.version
    assert stages.awaited(room.world, room.acks) == dict.fromkeys(("n1", "n2", "n3"), version)
    room.acks.revisions["n1"] = version
    room.node("n3", state=pb.NODE_STATE_DOWN, serving=False)
    assert stages.awaited(room.world, room.acks) == {"n2": version}
    room.edit(state=pb.TASK_STATE_FAILED)
    assert stages.awaited(room.world, room.acks) == dict.fromkeys(("n1", "n2", "n3"), room.task.version)
    room.confirm("n1", "n2", "n3")
    assert stages.awaited(room.world, room.acks) == {}
