from __future__ import annotations

import pytest
from tests.support import build

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator import restart, slots
from pyswarm_manager.orchestrator.restart import FRESH, Start

NOW = 10_000.0
ANY, ON_FAILURE, NONE = spec.RESTART_CONDITION_ANY, spec.RESTART_CONDITION_ON_FAILURE, spec.RESTART_CONDITION_NONE


def ended(
    state: pb.TaskState.ValueType = pb.TASK_STATE_FAILED,
    *,
    condition: spec.RestartCondition.ValueType = ANY,
    delay: float | None = 1,
    max_attempts: int = 0,
    window: float = 0,
    healthy_for: float = 0,
    at: float = NOW,
    created_at: float = 0,
    **counters: float,
) -> pb.Task:
    wanted = build.service_spec()
    wanted.task.restart.CopyFrom(
        spec.RestartPolicy(condition=condition, delay=delay, max_attempts=max_attempts, window=window)
    )
    task = build.task("t1", build.service(wanted), node_id="n1", state=state, at=at, created_at=created_at)
    if healthy_for:
        task.status.timings.healthy_at = at - healthy_for
    for name, value in counters.items():
        setattr(task, name, type(getattr(task, name))(value))
    return task


def next_start(task: pb.Task, now: float = NOW) -> Start | None:
    slot = slots.group([task], is_global=False)[(1, "")]
    return restart.next_start(slot, task.spec, now)


def wait(task: pb.Task, now: float = NOW) -> float:
    start = next_start(task, now)
    assert start is not None
    return start.at - now if start.at else 0


def test_the_delay_doubles_with_each_quick_failure_up_to_five_minutes() -> None:
    waits = [wait(ended(quick_failures=n)) for n in range(12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_long_first_delay_is_not_shortened() -> None:
    assert [wait(ended(delay=600, quick_failures=n)) for n in range(3)] == [600, 600, 600]


def test_without_a_delay_only_the_first_restart_is_immediate() -> None:
    assert [wait(ended(delay=0, quick_failures=n)) for n in range(5)] == [0, 1, 2, 4, 8]


def test_an_unset_delay_is_one_second() -> None:
    assert wait(ended(delay=None)) == 1


def test_a_task_that_was_healthy_for_five_minutes_starts_the_count_anew() -> None:
    assert wait(ended(quick_failures=6, healthy_for=299)) == 64
    assert wait(ended(quick_failures=6, healthy_for=300)) == 1
    start = next_start(ended(quick_failures=6, restarts=6, healthy_for=300))
    assert start is not None
    assert (start.restarts, start.quick_failures) == (7, 1)


@pytest.mark.parametrize(
    ("state", "condition", "restarts"),
    [
        (pb.TASK_STATE_FAILED, ANY, True),
        (pb.TASK_STATE_REJECTED, ANY, True),
        (pb.TASK_STATE_COMPLETE, ANY, True),
        (pb.TASK_STATE_SHUTDOWN, ANY, True),
        (pb.TASK_STATE_FAILED, ON_FAILURE, True),
        (pb.TASK_STATE_REJECTED, ON_FAILURE, True),
        (pb.TASK_STATE_COMPLETE, ON_FAILURE, False),
        (pb.TASK_STATE_FAILED, NONE, False),
        (pb.TASK_STATE_COMPLETE, NONE, False),
        (pb.TASK_STATE_SHUTDOWN, NONE, False),
    ],
)
def test_condition(state: pb.TaskState.ValueType, condition: spec.RestartCondition.ValueType, restarts: bool) -> None:
    assert (next_start(ended(state, condition=condition)) is not None) is restarts


def test_a_lost_task_is_replaced_whatever_the_condition_and_keeps_its_counts() -> None:
    task = ended(pb.TASK_STATE_RUNNING, condition=NONE, restarts=3, quick_failures=2)
    assert next_start(task) == Start(restarts=3, quick_failures=2)
    orphan = ended(pb.TASK_STATE_ORPHANED, condition=NONE, restarts=3)
    assert next_start(orphan) == Start(restarts=3)


def test_attempts_for_ever() -> None:
    assert next_start(ended(max_attempts=3, window_restarts=2, window_at=1)) is not None
    assert next_start(ended(max_attempts=3, window_restarts=3, window_at=1)) is None


def test_attempts_within_a_window() -> None:
    inside = ended(max_attempts=3, window=60, window_restarts=3, window_at=NOW - 60)
    outside = ended(max_attempts=3, window=60, window_restarts=3, window_at=NOW - 61)
    assert next_start(inside) is None
    start = next_start(outside)
    assert start is not None
    assert (start.window_at, start.window_restarts) == (NOW, 1)


def test_attempts_that_are_used_up_stay_used_up() -> None:
    """The window is measured when the task ended, not when somebody looks."""
    assert next_start(ended(max_attempts=3, window=60, window_restarts=3, window_at=NOW - 50), now=NOW + 1e6) is None


def test_a_task_that_could_not_be_prepared_is_not_prepared_again_at_once() -> None:
    start = next_start(ended(pb.TASK_STATE_REJECTED, quick_failures=3))
    assert start is not None
    assert start.made_at == start.at == NOW + 8
    start = next_start(ended(pb.TASK_STATE_FAILED, quick_failures=3))
    assert start is not None
    assert start.made_at == 0


def test_an_agent_whose_clock_is_off_neither_spins_nor_stalls() -> None:
    behind = ended(quick_failures=5, at=1, created_at=NOW - 1)
    assert wait(behind) == 31
    ahead = ended(quick_failures=5, at=NOW + 1e6)
    assert wait(ahead) == 32


def test_the_delay_counts_from_the_end_not_from_when_it_is_seen() -> None:
    assert wait(ended(quick_failures=5, at=NOW - 30)) == 2
    assert wait(ended(quick_failures=5, at=NOW - 60)) == 0


def test_another_spec_is_another_matter() -> None:
    task = ended(restarts=9, quick_failures=9)
    slot = slots.group([task], is_global=False)[(1, "")]
    assert restart.next_start(slot, build.task_spec("other"), NOW) == FRESH


def test_an_unhealthy_task_is_followed_at_once_then_with_growing_delays() -> None:
    def sick(quick: int) -> pb.Task:
        task = ended(pb.TASK_STATE_RUNNING, healthy_for=10, quick_failures=quick)
        task.status.health, task.status.health_at = pb.HEALTH_UNHEALTHY, NOW
        return task

    assert [wait(sick(n)) for n in range(4)] == [0, 1, 2, 4]
    none = sick(0)
    none.spec.restart.condition = NONE
    assert next_start(none) is None


def test_the_next_try_of_what_was_rejected_does_not_move_on_with_the_time() -> None:
    """Its agent's clock is an hour ahead: by it, the end is still to come."""
    task = ended(pb.TASK_STATE_REJECTED, delay=20, at=NOW + 3600, created_at=NOW - 5)
    made_at = [start.made_at for now in (NOW, NOW + 10) if (start := next_start(task, now)) is not None]
    assert made_at == [NOW + 15] * 2
