"""Dialling and the status box, without a network."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_agent.session_dial import ANSWERED_MAX, FAST_MAX, SLOW_MAX, Dialer
from pyswarm_agent.session_status import COALESCE, StatusBox
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def update(task_id: str, state: pb.TaskState.ValueType, *, adopted: bool = False) -> wire.StatusUpdate:
    message = wire.StatusUpdate(task_id=task_id, status=pb.TaskStatus(state=state))
    if adopted:
        message.adopted.id = task_id
    return message


def test_all_managers_are_tried_before_it_waits() -> None:
    dialer = Dialer(["a", "b", "c"], random.Random(1))
    tried = []
    for _ in range(3):
        address, delay = dialer.next()
        tried.append(address)
        assert delay == 0
        dialer.failed()
    assert tried == ["a", "b", "c"]
    assert dialer.next()[1] > 0


def test_it_is_fast_at_first_and_slow_later_and_never_too_slow() -> None:
    dialer = Dialer(["a"], random.Random(1))
    delays = []
    for _ in range(60):
        dialer.failed()
        delays.append(dialer.next()[1])
    assert all(0 < d <= FAST_MAX for d in delays[:30])
    assert sum(delays[:30]) >= 2.0, "fast for long enough to meet a manager's restart"
    assert all(d <= SLOW_MAX for d in delays) and delays[-1] > FAST_MAX
    dialer.opened("a")
    assert dialer.next() == ("a", 0.0)


def test_two_managers_that_name_each_other_are_not_asked_without_a_pause() -> None:
    dialer = Dialer(["a", "b"], random.Random(1))
    waited = 0.0
    for _ in range(20):
        address, delay = dialer.next()
        waited += delay
        dialer.redirected("b" if address == "a" else "a")
    assert waited > 1.0


@pytest.mark.parametrize("managers", [["stale", "leader"], ["stale", "other", "leader"], ["leader", "stale"]])
@pytest.mark.parametrize("named", ["stale", "other"])
def test_a_manager_that_does_not_know_who_leads_keeps_nobody_from_the_leader(managers: list[str], named: str) -> None:
    dialer = Dialer(managers, random.Random(1))
    dialer.opened("stale")
    tried = []
    while "leader" not in tried and len(tried) < 20:
        tried.append(dialer.next()[0])
        dialer.redirected(named)
    assert tried[-1] == "leader" and len(tried) <= 2 * len(managers)


def test_it_stays_fast_while_managers_answer_that_none_of_them_leads() -> None:
    """An election takes a lease's time and ends at some moment: the agents are to be there soon after it."""
    dialer = Dialer(["a", "b", "dead"], random.Random(1))
    delays = []
    for _ in range(60):
        address, delay = dialer.next()
        delays.append(delay)
        if address == "dead":
            dialer.failed()
        else:
            dialer.redirected("dead")
    assert max(delays) <= ANSWERED_MAX
    for _ in range(4):
        dialer.failed()
    assert max(dialer.next()[1] for _ in range(5)) > ANSWERED_MAX, "nobody answers any more"


def test_it_returns_to_the_manager_that_it_was_with() -> None:
    dialer = Dialer(["a", "b"], random.Random(1))
    dialer.next()
    dialer.redirected("b")
    assert dialer.next()[0] == "b"
    dialer.opened("b")
    assert dialer.next()[0] == "b"


def test_it_learns_who_manages_and_does_not_forget_who_did() -> None:
    dialer = Dialer(["a", "b"], random.Random(1))
    dialer.next()
    dialer.failed()  # on to b
    dialer.learn(["c", "b", "d"])
    assert dialer.managers == ("b", "d", "a", "c"), "from the one it is at; the first-known are tried for ever"
    tried = set()
    for _ in range(4):
        tried.add(dialer.next()[0])
        dialer.failed()
    assert tried == {"a", "b", "c", "d"}
    dialer.learn(["c"])
    assert set(dialer.managers) == {"c", "a", "b"}


def test_ordinary_statuses_wait_a_little_and_urgent_ones_hardly() -> None:
    clock = Clock()
    box = StatusBox(clock)
    box.put(update("a", pb.TASK_STATE_PREPARING))
    assert box.take() is None
    clock.now += COALESCE / 2
    box.put(update("b", pb.TASK_STATE_RUNNING))
    clock.now += 0.003
    batch = box.take()
    assert batch is not None and [u.task_id for u in batch.updates] == ["b"]
    assert box.take() is None and box.due == pytest.approx(100.0 + COALESCE)
    box.put(update("a", pb.TASK_STATE_STARTING))
    assert box.due == pytest.approx(100.0 + COALESCE), "as late as the first of them, not later"
    box.put(update("c", pb.TASK_STATE_PREPARING))
    clock.now = 100.0 + COALESCE
    batch = box.take()
    assert batch is not None and [u.task_id for u in batch.updates] == ["a"]
    assert batch.updates[0].status.state == pb.TASK_STATE_STARTING
    box.put(update("c", pb.TASK_STATE_READY))
    clock.now += 0.003
    assert box.take() is not None and box.take() is None and box.due is None


def test_a_successor_stays_behind_its_predecessor_and_keeps_its_task() -> None:
    box = StatusBox(clock := Clock())
    box.put(update("old", pb.TASK_STATE_FAILED))
    box.put(update("new", pb.TASK_STATE_STARTING, adopted=True))
    clock.now += 1
    assert box.take() is not None
    box.put(update("new", pb.TASK_STATE_RUNNING))
    box.new_session()
    batch = box.take()
    assert batch is not None
    assert [(u.task_id, u.status.state) for u in batch.updates] == [
        ("old", pb.TASK_STATE_FAILED),
        ("new", pb.TASK_STATE_RUNNING),
    ]
    assert batch.updates[1].HasField("adopted")


@given(st.lists(st.sampled_from(["put", "take", "store", "session"]), max_size=40))
def test_nothing_is_lost(steps: list[str]) -> None:
    """Whatever happens, in the end the manager has stored the last status of every task."""
    clock = Clock()
    box = StatusBox(clock)
    stored: dict[str, int] = {}
    sent: list[wire.StatusBatch] = []
    wanted: dict[str, int] = {}
    acknowledged = number = 0

    def store() -> None:
        nonlocal acknowledged
        if acknowledged < len(sent):
            for u in sent[acknowledged].updates:
                stored[u.task_id] = u.status.pid
            acknowledged += 1
            box.stored(acknowledged)

    for step in [*steps, "session"]:
        clock.now += 1
        if step == "put":
            number += 1
            task_id = f"t{number % 3}"
            wanted[task_id] = number
            box.put(wire.StatusUpdate(task_id=task_id, status=pb.TaskStatus(pid=number)))
        elif step == "take" and (batch := box.take()) is not None:
            sent.append(batch)
        elif step == "store":
            store()
        elif step == "session":
            sent, acknowledged = [], 0
            box.new_session()
    while (batch := box.take()) is not None:
        sent.append(batch)
    while acknowledged < len(sent):
        store()
    assert stored == wanted and box.unstored == 0
