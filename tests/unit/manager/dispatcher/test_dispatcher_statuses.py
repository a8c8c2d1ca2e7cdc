from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.dispatcher.statuses import Report, advanced, writes
from pyswarm_manager.tasks import is_terminal
from pyswarm_manager.world import CachedWorld

RUNNING, FAILED, SHUTDOWN = pb.TASK_STATE_RUNNING, pb.TASK_STATE_FAILED, pb.TASK_STATE_SHUTDOWN


def status(state: int, **fields: object) -> pb.TaskStatus:
    return pb.TaskStatus(state=state, **fields)


def world(*tasks: pb.Task) -> CachedWorld:
    world = CachedWorld()
    for task in tasks:
        world.on_change("task", task.id, None, task)
    world.on_revision(9)
    return world


def task(task_id: str = "t", **fields: object) -> pb.Task:
    fields.setdefault("status", status(RUNNING))
    fields.setdefault("desired_state", RUNNING)
    return pb.Task(
        id=task_id,
        version=5,
        service_id="s",
        service_name="web",
        slot=3,
        node_id="n",
        spec=spec.TaskSpec(force=4),
        spec_version=2,
        addresses=[pb.TaskAddress(network_id="net", address="10.1.0.5")],
        **fields,
    )


def report(task_id: str, status: pb.TaskStatus, node: str = "n", adopted: pb.Task | None = None) -> Report:
    return Report(node, wire.StatusUpdate(task_id=task_id, status=status, adopted=adopted))


STATES = st.sampled_from(pb.TaskState.values())
STATUSES = st.builds(
    lambda state, health, message: status(state, health=health, message=message),
    STATES,
    st.sampled_from(pb.Health.values()),
    st.sampled_from(["", "a", "b"]),
)


@given(STATUSES, st.lists(STATUSES, max_size=8))
def test_states_only_advance_and_the_end_is_the_end(stored: pb.TaskStatus, reports: list[pb.TaskStatus]) -> None:
    for reported in reports:
        result = advanced(stored, reported)
        if result is None:
            continue
        assert result.state >= stored.state
        assert stored.state >= pb.TASK_STATE_ASSIGNED, "before that the status is the manager's"
        if stored.state >= pb.TASK_STATE_COMPLETE:
            assert result.state == stored.state
        assert advanced(result, reported) is None, "the same again is nothing new"
        stored = result


def test_reports_that_have_nothing_to_do_with_each_other_are_stored_apart() -> None:
    one, two = task("a"), task("b")
    groups = writes(world(one, two), [report("a", status(FAILED)), report("b", status(FAILED))])
    assert [[put.message.id for put in group] for group in groups] == [["a"], ["b"]]


def test_a_talkative_agent_is_cut_short() -> None:
    loud = status(FAILED, error="e" * 10**6, last_lines=["x" * 10**5] * 50)
    result = stored(writes(world(task()), [report("t", loud)]))["t"].status
    assert result.state == FAILED
    assert result.ByteSize() < 10_000
    assert len(result.last_lines) == 10


def test_a_state_that_we_do_not_know_is_ignored() -> None:
    assert writes(world(task()), [report("t", status(600))]) == []


def test_health_goes_back_and_forth_within_a_state() -> None:
    sick = advanced(status(RUNNING, health=pb.HEALTH_HEALTHY), status(RUNNING, health=pb.HEALTH_UNHEALTHY))
    assert sick is not None
    assert advanced(sick, status(RUNNING, health=pb.HEALTH_HEALTHY)) is not None


def test_several_reports_about_one_task_are_one_write_on_its_stored_version() -> None:
    puts = writes(world(task()), [report("t", status(RUNNING, message="x")), report("t", status(FAILED, error="e"))])
    ((put,),) = puts
    assert put.message.version == 5
    assert isinstance(put.message, pb.Task)
    assert (put.message.status.state, put.message.status.error) == (FAILED, "e")


@pytest.mark.parametrize(
    "ignored",
    [
        report("unknown", status(RUNNING)),
        report("t", status(FAILED), node="other"),
        report("t", status(pb.TASK_STATE_READY)),
        report("t", status(RUNNING)),
    ],
    ids=["unknown task", "another's task", "an earlier state", "nothing new"],
)
def test_ignored(ignored: Report) -> None:
    assert writes(world(task()), [ignored]) == []


SUCCESSOR = derived_id("successor", "t", "1")


def adopted(task_id: str = SUCCESSOR, address: str = "10.1.0.5", **fields: object) -> pb.Task:
    fields.setdefault("predecessor_id", "t")
    return pb.Task(
        id=task_id,
        created_at=77,
        node_id="n",
        service_id="evil",
        slot=99,
        spec=spec.TaskSpec(force=99),
        addresses=[pb.TaskAddress(network_id="net", address=address)],
        **fields,
    )


def stored(groups: list) -> dict[str, pb.Task]:
    return {put.message.id: put.message for group in groups for put in group}


def test_a_successor_is_adopted_with_what_its_predecessor_had_and_takes_over_the_address() -> None:
    end = report("t", status(FAILED, error="crashed"))
    published = task(ports=[spec.Port(target=80, published=8080)])
    result = stored(writes(world(published), [end, report(SUCCESSOR, status(RUNNING), adopted=adopted(restarts=1))]))
    new, old = result[SUCCESSOR], result["t"]
    assert (new.service_id, new.slot, new.spec.force, new.spec_version, new.version) == ("s", 3, 4, 2, 0)
    assert (new.status.state, new.desired_state, new.predecessor_id, new.restarts) == (RUNNING, RUNNING, "t", 1)
    assert (new.balanced_at, new.rollout_id, new.addresses_free, new.took_over) == (0, "", False, True)
    assert (old.status.state, old.status.error) == (FAILED, "crashed")
    assert [a.address for a in new.addresses] == ["10.1.0.5"] and list(new.ports) == list(published.ports)
    assert not old.addresses, "an address has one holder"


def test_a_chain_of_successors_is_adopted_whole_even_when_the_first_end_was_never_told() -> None:
    second = derived_id("successor", SUCCESSOR, "1")
    reports = [
        report(SUCCESSOR, status(FAILED), adopted=adopted()),
        report(second, status(RUNNING), adopted=adopted(second, predecessor_id=SUCCESSOR)),
    ]
    groups = writes(world(task()), [*reports, report("u", status(pb.TASK_STATE_COMPLETE))])
    assert [[put.message.id for put in group] for group in groups] == [["t", SUCCESSOR, second]], "stored as one"
    result = stored(groups)
    assert result["t"].status.state == FAILED
    assert result[SUCCESSOR].status.state == FAILED
    assert result[second].status.state == RUNNING
    assert [t.id for t in result.values() if t.addresses] == [second]
    assert sum(not is_terminal(t) for t in result.values()) == 1


def test_a_chain_longer_than_a_transaction_is_stored_with_its_end_first() -> None:
    chain = ["t"]
    for _ in range(250):
        chain.append(derived_id("successor", chain[-1], "1"))
    reports = [
        report(one, status(FAILED), adopted=adopted(one, predecessor_id=before))
        for before, one in itertools.pairwise(chain)
    ]
    groups = writes(world(task()), reports)
    assert max(map(len, groups)) <= 127
    assert groups[0][-1].message.id == chain[-1]
    assert stored(groups).keys() == set(chain)


def test_a_later_successor_of_the_same_task_is_adopted_too() -> None:
    later = derived_id("successor", "t", "17")
    assert later in stored(writes(world(task()), [report(later, status(RUNNING), adopted=adopted(later))]))


def test_a_second_successor_takes_over_from_a_first_that_was_stored_though_the_agent_does_not_know() -> None:
    """The acknowledgement was lost, the manager too, and the successor died: its successor is of the same task."""
    root = task()
    del root.addresses[:]
    root.status.state = FAILED
    first = pb.Task(id=SUCCESSOR, version=8, service_id="s", node_id="n", predecessor_id="t", status=status(RUNNING))
    first.addresses.add(network_id="net", address="10.1.0.5")
    second = derived_id("successor", "t", "2")
    groups = writes(world(root, first), [report(second, status(RUNNING), adopted=adopted(second))])
    result = stored(groups)
    assert [a.address for a in result[second].addresses] == ["10.1.0.5"]
    assert not result[SUCCESSOR].addresses
    assert result[SUCCESSOR].status.state == FAILED
    assert len(groups) == 1


def test_a_successor_of_a_task_that_was_replaced_meanwhile_goes_its_predecessors_way() -> None:
    gone = task(desired_state=SHUTDOWN, leaving=True, leaving_at=5.0, released=True)
    new = stored(writes(world(gone), [report(SUCCESSOR, status(RUNNING), adopted=adopted())]))[SUCCESSOR]
    assert (new.desired_state, new.leaving, new.released) == (SHUTDOWN, True, False)


def test_a_successor_of_a_dead_task_that_was_replaced_meanwhile_leaves_though_the_dead_one_did_not() -> None:
    gone = task(desired_state=SHUTDOWN)
    gone.status.state = FAILED
    new = stored(writes(world(gone), [report(SUCCESSOR, status(RUNNING), adopted=adopted())]))[SUCCESSOR]
    assert (new.desired_state, new.leaving, new.released) == (SHUTDOWN, True, False)
    assert new.leaving_at == new.created_at


@pytest.mark.parametrize(
    "wrong",
    [
        report("made-up", status(RUNNING), adopted=adopted("made-up")),
        report(SUCCESSOR, status(RUNNING), adopted=adopted("different")),
        report(SUCCESSOR, status(RUNNING), node="other", adopted=adopted()),
        report(SUCCESSOR, status(RUNNING), adopted=adopted(predecessor_id="nobody")),
        report(SUCCESSOR, status(RUNNING), adopted=adopted(address="10.1.0.9")),
    ],
    ids=["no derived id", "two ids", "another node's task", "no predecessor", "another task's address"],
)
def test_not_adopted(wrong: Report) -> None:
    neighbour = pb.Task(id="u", service_id="s", node_id="n", status=status(RUNNING))
    neighbour.addresses.add(network_id="net", address="10.1.0.9")
    assert writes(world(task(), neighbour), [wrong]) == []


def test_once_adopted_it_is_a_task_like_others() -> None:
    known = pb.Task(id=SUCCESSOR, version=8, service_id="s", node_id="n", status=status(RUNNING))
    result = stored(writes(world(task(), known), [report(SUCCESSOR, status(FAILED), adopted=adopted())]))
    assert list(result) == [SUCCESSOR]
    assert result[SUCCESSOR].version == 8
