"""The restart policy: does a slot get another task, and when.

What is counted travels from task to task in a slot as long as they are of one spec:

- `quick_failures`: ends in a row of tasks that had not been healthy for STEADY seconds. The delay is the policy's for
  the first and doubles with each, up to 300 s. A task that was healthy for longer starts the count anew.
- `window_restarts` since `window_at`: for max_attempts. The window begins with its first restart, and the first end
  after it is over begins the next one. It is measured at the time of the end, so that a slot that has used up its
  attempts stays as it is until somebody changes the service.

The policy is about tasks that end or fail. A task that must leave its node is replaced whatever the policy says.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.fitness import is_unhealthy
from pyswarm_manager.orchestrator.slots import Slot, age
from pyswarm_manager.tasks import is_terminal

MAX_DELAY = 300.0
STEADY = 300.0  # healthy for this long: what follows is no longer the same trouble
DEFAULT_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """How a slot's next task begins. `at`: it is started at this time, 0 = at once. `made_at`: it is made, and so
    prepared, at this time: a task that could not be prepared is not followed by one that tries the same at once."""

    at: float = 0
    made_at: float = 0
    restarts: int = 0
    quick_failures: int = 0
    window_at: float = 0
    window_restarts: int = 0


FRESH = Start()


def next_start(slot: Slot, task_spec: spec.TaskSpec, now: float) -> Start | None:
    """For another task of this spec in this slot; None: the policy allows none."""
    before = [task for task in slot.tasks if task.spec == task_spec]
    if not before:
        return FRESH
    last = max(before, key=age)
    if is_unhealthy(last) or (is_terminal(last) and _ended_by_itself(last)):
        return _after(last, now)
    return _copied(last)


def is_done(task: pb.Task) -> bool:
    """It did what it was for: nothing has to follow."""
    return task.status.state == pb.TASK_STATE_COMPLETE and task.spec.restart.condition != spec.RESTART_CONDITION_ANY


def _after(last: pb.Task, now: float) -> Start | None:
    policy = last.spec.restart
    if policy.condition == spec.RESTART_CONDITION_NONE or is_done(last):
        return None
    ended_at = last.status.health_at if is_unhealthy(last) else last.status.at
    healthy_at = last.status.timings.healthy_at
    steady = healthy_at > 0 and ended_at - healthy_at >= STEADY
    quick = 1 if steady else last.quick_failures + 1
    in_window = last.window_at > 0 and (policy.window <= 0 or ended_at - last.window_at <= policy.window)
    used = last.window_restarts if in_window else 0
    if policy.max_attempts and used >= policy.max_attempts:
        return None
    # One that is unhealthy serves no more, but lives: its first successor need not wait.
    waits = quick - 1 if is_unhealthy(last) else quick
    wait = delay(policy, waits) if waits else 0.0
    due = _certain_end(last, ended_at, now) + wait
    at = due if due > now else 0.0
    return Start(
        at=at,
        made_at=at if last.status.state == pb.TASK_STATE_REJECTED else 0,
        restarts=last.restarts + 1,
        quick_failures=quick,
        window_at=last.window_at if in_window else now,
        window_restarts=used + 1,
    )


def _certain_end(last: pb.Task, ended_at: float, now: float) -> float:
    """The agent's clock may be off: what is known for certain is that it ended between its creation and now."""
    if last.status.state == pb.TASK_STATE_REJECTED and ended_at > now:
        return last.created_at  # its successor is yet to be made, at a time that must not move on with now
    return max(last.created_at, min(now, ended_at))


def delay(policy: spec.RestartPolicy, failures: int) -> float:
    """Seconds after the `failures`-th quick failure in a row (1 = the first).

    With a delay of 0 only the first restart is immediate: a container that cannot live must not spin.
    """
    first = policy.delay if policy.HasField("delay") else DEFAULT_DELAY
    doublings = min(failures - 1, 32)
    if first <= 0:
        return 0.0 if doublings == 0 else min(MAX_DELAY, DEFAULT_DELAY * 2.0 ** (doublings - 1))
    return max(first, min(MAX_DELAY, first * 2.0**doublings))


def _ended_by_itself(task: pb.Task) -> bool:
    """Not because it was asked to, and not with its node."""
    match task.status.state:
        case pb.TASK_STATE_COMPLETE | pb.TASK_STATE_FAILED | pb.TASK_STATE_REJECTED:
            return True
        case pb.TASK_STATE_SHUTDOWN:
            return task.desired_state <= pb.TASK_STATE_RUNNING
        case _:
            return False


def _copied(last: pb.Task) -> Start:
    return Start(
        restarts=last.restarts,
        quick_failures=last.quick_failures,
        window_at=last.window_at,
        window_restarts=last.window_restarts,
    )
