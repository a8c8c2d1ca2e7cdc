"""While no manager can be reached, a slot whose task ended is filled by this host itself. Pure.

The successor's id is derived from the last task that a manager knows (its n-th successor), so that managers can tell
whose place it took. It takes over that task's addresses: no other can be had without a manager, and every other host's
balancer has these for the slot, so their connections arrive. Restart policy and counters are the managers' own
(`pyswarm_manager.orchestrator.restart`), so that a slot is treated alike whoever looks after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

AWAY = 5.0  # seconds without a session: shorter than that, a manager restarts or another takes the lead
# What ended before the session was lost is the managers' to replace; unless they stay away for longer than this.
AWAY_LONG = 30.0
MAX_DELAY = 300.0
STEADY = 300.0  # healthy for this long: what follows is no longer the same trouble
DEFAULT_DELAY = 1.0
TICK = 0.001  # seconds between the creations of a slot's tasks, where this host's clock is behind the managers'

_ENDED = (pb.TASK_STATE_COMPLETE, pb.TASK_STATE_FAILED, pb.TASK_STATE_REJECTED)


@dataclass(frozen=True, slots=True)
class Successor:
    task: pb.Task
    number: int  # the how-manieth successor of its predecessor
    replaces: str  # the task that ended


@dataclass(frozen=True, slots=True)
class Plan:
    successors: tuple[Successor, ...] = ()
    start: tuple[pb.Task, ...] = ()  # restarts that a manager had prepared and whose time has come, as they are to be


def plan(lives: Mapping[str, Life], made: Mapping[str, int], lost_at: float, now: float) -> Plan:
    """`made`: tasks of this host's own making that no manager knows yet, with their numbers. `lost_at`: since when
    there is no session. Times are unix seconds."""
    if now - lost_at < AWAY:
        return Plan()
    taken = {(life.task.service_id, life.task.slot) for life in lives.values() if not _is_ended(life)}
    successors = []
    for life in sorted(lives.values(), key=lambda each: each.status.at):
        place = (life.task.service_id, life.task.slot)
        if not _is_ended(life) or life.unwanted or life.task.leaving or place in taken:
            continue
        if life.task.spec.exclusive:
            continue  # a host that hears nobody has to end such tasks, not to begin them
        if life.task.desired_state != pb.TASK_STATE_RUNNING or _has_follower(life, lives):
            continue
        if life.status.at < lost_at - 1 and now - lost_at < AWAY_LONG:
            continue
        if (found := _successor(life, made.get(life.id, 0), now)) is not None:
            successors.append(found)
            taken.add(place)
    start = tuple(
        _started(life.task)
        for life in lives.values()
        if life.task.desired_state == pb.TASK_STATE_READY
        and 0 < life.task.start_after <= now
        and not life.task.leaving
        and not life.task.spec.exclusive
        and not life.gone
    )
    return Plan(tuple(successors), start)


def _is_ended(life: Life) -> bool:
    return life.phase >= Phase.CLEANING


def _has_follower(life: Life, lives: Mapping[str, Life]) -> bool:
    """A later task of the same slot has been here: this one is history."""
    return any(
        other.task.service_id == life.task.service_id
        and other.task.slot == life.task.slot
        and other.task.created_at > life.task.created_at
        for other in lives.values()
    )


def _started(task: pb.Task) -> pb.Task:
    copy = pb.Task()
    copy.CopyFrom(task)
    copy.desired_state = pb.TASK_STATE_RUNNING
    return copy


def _successor(life: Life, number: int, now: float) -> Successor | None:
    """None: the policy allows none, or not yet. `number` > 0: the task itself is a successor that nobody knows."""
    ended, status, policy = life.task, life.status, life.task.spec.restart
    if status.state not in _ENDED or policy.condition == spec.RESTART_CONDITION_NONE:
        return None
    if status.state == pb.TASK_STATE_COMPLETE and policy.condition != spec.RESTART_CONDITION_ANY:
        return None
    healthy_at = status.timings.healthy_at
    steady = healthy_at > 0 and status.at - healthy_at >= STEADY
    quick = 1 if steady else ended.quick_failures + 1
    in_window = ended.window_at > 0 and (policy.window <= 0 or status.at - ended.window_at <= policy.window)
    used = ended.window_restarts if in_window else 0
    if (policy.max_attempts and used >= policy.max_attempts) or now < status.at + delay(policy, quick):
        return None
    root = ended.predecessor_id if number else ended.id
    task = pb.Task(
        id=derived_id("successor", root, str(number + 1)),
        created_at=max(now, ended.created_at + TICK),
        service_id=ended.service_id,
        service_name=ended.service_name,
        slot=ended.slot,
        node_id=ended.node_id,
        spec=ended.spec,
        spec_version=ended.spec_version,
        desired_state=pb.TASK_STATE_RUNNING,
        status=pb.TaskStatus(state=pb.TASK_STATE_ASSIGNED, at=now),
        addresses=ended.addresses,
        service_labels=ended.service_labels,
        ports=ended.ports,
        restarts=ended.restarts + 1,
        quick_failures=quick,
        window_at=ended.window_at if in_window else now,
        window_restarts=used + 1,
        predecessor_id=root,
    )
    return Successor(task, number + 1, ended.id)


def delay(policy: spec.RestartPolicy, failures: int) -> float:
    """Seconds after the `failures`-th quick failure in a row (1 = the first)."""
    first = policy.delay if policy.HasField("delay") else DEFAULT_DELAY
    doublings = min(failures - 1, 32)
    if first <= 0:
        return 0.0 if doublings == 0 else min(MAX_DELAY, DEFAULT_DELAY * 2.0 ** (doublings - 1))
    return max(first, min(MAX_DELAY, first * 2.0**doublings))
