"""Who fills a slot while no manager is there, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.agent.tasks.build import make_task

from pyswarm_agent.tasks.life import Life, Phase, orders_of
from pyswarm_agent.tasks.successor import AWAY, AWAY_LONG, delay, plan
from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

LOST = 1000.0


def ended(task_id: str = "a", *, at: float = LOST + 1, state: Any = pb.TASK_STATE_FAILED, **changes: Any) -> Life:
    task = make_task(task_id, created_at=10.0, **changes)
    status = pb.TaskStatus(state=state, at=at)
    return Life(task=orders_of(task), phase=Phase.DONE, status=status, served=True, started=True)


def by_id(*lives: Life) -> dict[str, Life]:
    return {life.id: life for life in lives}


def ids(*lives: Life, now: float = LOST + 60, made: dict[str, int] | None = None) -> list[str]:
    return [s.task.id for s in plan(by_id(*lives), made or {}, LOST, now).successors]


def test_a_dead_task_gets_a_successor_after_its_delay_with_its_addresses() -> None:
    life = ended()
    life.task.ports.add(target=80, published=8080)
    assert not ids(life, now=LOST + AWAY - 0.1), "managers may be back in a moment"
    (found,) = plan(by_id(life), {}, LOST, LOST + AWAY).successors
    task = found.task
    assert task.id == derived_id("successor", "a", "1") and task.predecessor_id == "a" and found.number == 1
    assert task.addresses == life.task.addresses and task.spec == life.task.spec and task.slot == 1
    assert list(task.ports) == list(life.task.ports)
    assert (task.restarts, task.quick_failures, task.window_restarts) == (1, 1, 1)
    assert task.desired_state == pb.TASK_STATE_RUNNING and task.status.state == pb.TASK_STATE_ASSIGNED
    late = ended(at=LOST + AWAY)
    assert not ids(late, now=LOST + AWAY + 0.9) and ids(late, now=LOST + AWAY + 1)


def test_what_ended_before_the_loss_is_left_to_the_managers_for_a_while() -> None:
    life = ended(at=LOST - 10)
    assert not ids(life, now=LOST + AWAY_LONG - 1)
    assert ids(life, now=LOST + AWAY_LONG)


def test_successors_of_successors_are_numbered_from_the_task_that_managers_know() -> None:
    first = ended()
    (one,) = plan(by_id(first), {}, LOST, LOST + 60).successors
    gone = replace(ended(one.task.id), task=orders_of(one.task))
    (two,) = plan(by_id(first, gone), {one.task.id: 1}, LOST, LOST + 60).successors
    assert two.task.id == derived_id("successor", "a", "2") and two.task.predecessor_id == "a" and two.number == 2
    assert two.replaces == one.task.id and two.task.restarts == 2
    # once a manager has taken the first one over, it is the one to count from
    (other,) = plan(by_id(first, gone), {}, LOST, LOST + 60).successors
    assert other.task.id == derived_id("successor", one.task.id, "1")


def test_a_host_whose_clock_is_behind_the_managers_goes_on_with_its_own_successors() -> None:
    first = ended()
    first.task.created_at = LOST + 3600
    (one,) = plan(by_id(first), {}, LOST, LOST + 60).successors
    gone = replace(ended(one.task.id, at=LOST + 70), task=orders_of(one.task))
    (two,) = plan(by_id(first, gone), {one.task.id: 1}, LOST, LOST + 120).successors
    assert two.replaces == one.task.id and first.task.created_at < one.task.created_at < two.task.created_at


@pytest.mark.parametrize(
    ("condition", "state", "expected"),
    [
        (spec.RESTART_CONDITION_ANY, pb.TASK_STATE_COMPLETE, True),
        (spec.RESTART_CONDITION_ANY, pb.TASK_STATE_FAILED, True),
        (spec.RESTART_CONDITION_ON_FAILURE, pb.TASK_STATE_COMPLETE, False),
        (spec.RESTART_CONDITION_ON_FAILURE, pb.TASK_STATE_FAILED, True),
        (spec.RESTART_CONDITION_NONE, pb.TASK_STATE_FAILED, False),
        (spec.RESTART_CONDITION_ANY, pb.TASK_STATE_SHUTDOWN, False),
    ],
)
def test_the_restart_policy(condition: Any, state: Any, expected: bool) -> None:
    life = ended(state=state)
    life.task.spec.restart.condition = condition
    assert bool(ids(life)) is expected


def test_attempts_are_counted() -> None:
    life = ended(window_restarts=3, window_at=500.0)
    life.task.spec.restart.max_attempts = 3
    assert not ids(life)
    life.task.spec.restart.window = 100.0
    assert ids(life), "the window is over"


def test_who_gets_none() -> None:
    assert not ids(ended(desired_state=pb.TASK_STATE_SHUTDOWN))
    assert not ids(ended(leaving=True))
    assert not ids(replace(ended(), gone=True))
    running = replace(ended("b"), phase=Phase.RUNNING)
    assert not ids(ended("a"), running), "its slot is filled"
    follower = ended("b")
    follower.task.created_at = 20.0
    assert ids(ended("a"), follower) == [derived_id("successor", "b", "1")], "only the last of a slot"


def test_a_restart_that_a_manager_had_prepared_is_started() -> None:
    waiting = replace(ended("b", desired_state=pb.TASK_STATE_READY, start_after=LOST + 20), phase=Phase.READY)
    assert not plan(by_id(waiting), {}, LOST, LOST + 19).start
    (task,) = plan(by_id(waiting), {}, LOST, LOST + 20).start
    assert task.desired_state == pb.TASK_STATE_RUNNING and waiting.task.desired_state == pb.TASK_STATE_READY
    update = replace(ended("b", desired_state=pb.TASK_STATE_READY), phase=Phase.READY)
    assert not plan(by_id(update), {}, LOST, LOST + 99).start, "a rollout's new task waits for its manager"


def test_delays_grow_and_a_steady_task_begins_anew() -> None:
    policy = spec.RestartPolicy(delay=2.0)
    assert [delay(policy, n) for n in (1, 2, 3, 20)] == [2.0, 4.0, 8.0, 300.0]
    assert [delay(spec.RestartPolicy(delay=0.0), n) for n in (1, 2, 3)] == [0.0, 1.0, 2.0]
    life = ended(quick_failures=4)
    assert not ids(life, now=LOST + 1 + 15.9) and ids(life, now=LOST + 1 + 16)
    status = pb.TaskStatus(state=pb.TASK_STATE_FAILED, at=LOST + 1)
    status.timings.healthy_at = LOST - 400
    assert ids(replace(life, status=status), now=LOST + 6)
