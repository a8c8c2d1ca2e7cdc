"""The rollout's own state: RUNNING → COMPLETED | PAUSED | ROLLING_BACK → ROLLED_BACK | PAUSED; or SUPERSEDED.

`advance` brings the stored object up to date with what the slots show. A turn (rolled back, paused, completed) is
carried out alone: the slots are settled in the next run, by the rules that hold from then on.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.view import ACTIVE, View
from pyswarm_manager.plan import Put, Write, changed, earliest
from pyswarm_manager.rollout import completion, failure, progress, receipt
from pyswarm_manager.rollout.failure import Action


@dataclass(frozen=True, slots=True)
class Advance:
    """`writes` are one transaction. `is_turn`: nothing else is to be planned on what was before it."""

    rollout: pb.Rollout
    writes: tuple[Write, ...] = ()
    is_turn: bool = False
    wake_at: float | None = None
    notes: tuple[str, ...] = ()


def supersede(view: View) -> list[Write]:
    """Rollouts of this service that were still going on when a newer one was stored."""
    overtaken: list[Write] = []
    for rollout in view.world.rollouts_of_service(view.service.id):
        if rollout.id != view.service.rollout_id and rollout.state in ACTIVE:
            out = changed(rollout)
            out.reason = out.reason or "a newer change of the service took over"
            _finish(view, out, pb.ROLLOUT_STATE_SUPERSEDED)
            overtaken.append(Put(out))
    return overtaken


def advance(view: View) -> Advance:
    """The view's rollout is being carried out."""
    stored = view.rollout
    assert stored is not None and view.is_active
    rollout = changed(stored)
    _set_times(view, rollout)
    _take_stock(view, stored, rollout)
    turn = _turn(view, rollout)
    if turn is not None:
        return turn
    _update_receipt(view, rollout)
    writes = (Put(rollout),) if _is_news(stored, rollout) else ()
    return Advance(rollout, writes, wake_at=_wake_at(view, rollout))


def _set_times(view: View, rollout: pb.Rollout) -> None:
    """At the first look; and later, for whoever stored them may have had a clock that was ahead: nothing waits for
    longer than its policy says, from now."""
    rollout.started_at = min(rollout.started_at or view.now, view.now)
    rollout.deadline_at = min(
        rollout.deadline_at or rollout.started_at + view.policy.deadline, view.now + view.policy.deadline
    )
    rollout.batch_finished_at = min(rollout.batch_finished_at, view.now)


def _take_stock(view: View, stored: pb.Rollout, rollout: pb.Rollout) -> None:
    """Slots, failures, and the end of a batch."""
    slots = progress.derive(view, stored)
    before = progress.by_key(stored)
    by_key = {slot.key: slot for slot in view.wanted}
    for p in slots:
        known = before.get((p.slot, p.node_id))
        if p.phase != pb.SLOT_PHASE_FAILED or (known is not None and known.phase == pb.SLOT_PHASE_FAILED):
            continue
        rollout.failures += 1
        task = progress.blamed(view, stored, by_key[(p.slot, p.node_id)], known)
        if task is not None and (rollout.generation == 0 or not rollout.failed_task_id):
            rollout.failed_task_id = task.id
    was_flying = any(p.phase in progress.IN_FLIGHT for p in stored.slots)
    if was_flying and not any(p.phase in progress.IN_FLIGHT for p in slots):
        rollout.batch_finished_at = view.now
    del rollout.slots[:]
    rollout.slots.extend(slots)


def _turn(view: View, rollout: pb.Rollout) -> Advance | None:
    """What ends this rollout, or turns it back."""
    reason = ""
    if failure.is_over_ratio(view, rollout.slots) and not _goes_on_regardless(view, rollout):
        rollout.failed = True
        task = view.world.tasks.get(rollout.failed_task_id)
        reason = failure.why_failed(view, task) if task is not None else "a task failed"
    elif completion.is_complete(view, rollout):
        return _completed(view, rollout)
    elif _is_late(view, rollout) or _is_late_rollback(view, rollout):
        rollout.deadline_passed |= rollout.generation == 0
        if completion.is_only_draining(view, rollout):
            # Nothing would be better for going back: what is old has left the balancers, and ends on its own.
            rollout.reason = rollout.reason or failure.why_draining(view, completion.left_over(view, rollout))
            return _completed(view, rollout)
        reason, task_id = failure.why_late(view, rollout.slots)
        rollout.failed_task_id = rollout.failed_task_id or task_id
    if not reason:
        return None
    match failure.action(view, rollout):
        case Action.ROLL_BACK:
            return _roll_back(view, rollout, reason)
        case Action.GO_ON if rollout.deadline_passed and rollout.generation == 0:
            return _late(view, rollout, reason)
        case Action.GO_ON if not _is_late_rollback(view, rollout):
            rollout.reason = rollout.reason or f"{reason}; the rollout goes on, as its failure action asks"
            return None
        case _:
            return _pause(view, rollout, reason)


def _goes_on_regardless(view: View, rollout: pb.Rollout) -> bool:
    """Failure action continue, and it has been said."""
    return failure.action(view, rollout) is Action.GO_ON and rollout.failed


def _is_late(view: View, rollout: pb.Rollout) -> bool:
    return rollout.generation == 0 and view.now >= rollout.deadline_at


def _is_late_rollback(view: View, rollout: pb.Rollout) -> bool:
    return rollout.generation > 0 and view.now >= rollout.deadline_at


def _roll_back(view: View, rollout: pb.Rollout, reason: str) -> Advance:
    """The service's spec is exactly what it was; the slots follow in the next runs."""
    service = changed(view.service)
    service.spec.CopyFrom(service.previous_spec)
    service.ClearField("previous_spec")
    service.spec_version += 1
    service.updated_at = view.now
    rollout.state = pb.ROLLOUT_STATE_ROLLING_BACK
    rollout.generation = 1
    rollout.reason = reason
    rollout.deadline_at = view.now + service.spec.rollback.deadline
    rollout.batch_finished_at = 0
    _update_receipt(view, rollout)
    del rollout.slots[:]
    note = f"{rollout.service_name}: rolls back: {reason}"
    return Advance(rollout, (Put(service), Put(rollout)), is_turn=True, notes=(note,))


def _pause(view: View, rollout: pb.Rollout, reason: str) -> Advance:
    if rollout.generation > 0:
        reason = f"{rollout.reason}; then rolling back failed: {reason}"
    elif failure.is_first_deploy(rollout):
        reason = f"{reason}; it is the first deploy, so there is nothing to go back to"
    rollout.reason = reason
    _finish(view, rollout, pb.ROLLOUT_STATE_PAUSED)
    return Advance(rollout, (Put(rollout),), is_turn=True, notes=(f"{rollout.service_name}: pauses: {reason}",))


def _completed(view: View, rollout: pb.Rollout) -> Advance:
    forward = rollout.state == pb.ROLLOUT_STATE_RUNNING
    failed = sum(1 for p in rollout.slots if p.phase == pb.SLOT_PHASE_FAILED)
    if forward and failed and not rollout.reason:
        rollout.reason = f"{failed} of {len(rollout.slots)} tasks failed, which max-failure-ratio allows"
    _finish(view, rollout, pb.ROLLOUT_STATE_COMPLETED if forward else pb.ROLLOUT_STATE_ROLLED_BACK)
    return Advance(
        rollout, (Put(rollout),), is_turn=True, notes=(f"{rollout.service_name}: {rollout.receipt.outcome}",)
    )


def _late(view: View, rollout: pb.Rollout, reason: str) -> Advance:
    """Nobody is kept waiting past the deadline. What is left is brought to the new spec without a rollout, as are the
    tasks of a node that was away during one."""
    rollout.reason = f"{reason}; the tasks go on being brought to the new spec, as the failure action asks"
    _finish(view, rollout, pb.ROLLOUT_STATE_COMPLETED)
    return Advance(rollout, (Put(rollout),), is_turn=True, notes=(f"{rollout.service_name}: late: {reason}",))


def _finish(view: View, rollout: pb.Rollout, state: pb.RolloutState.ValueType) -> None:
    rollout.state = state
    rollout.started_at = rollout.started_at or view.now
    rollout.finished_at = view.now
    _update_receipt(view, rollout)


def _update_receipt(view: View, rollout: pb.Rollout) -> None:
    tasks = [task for slot in view.slots.values() for task in slot.tasks]
    receipt.update(rollout.receipt, view, rollout, tasks)


def _is_news(stored: pb.Rollout, rollout: pb.Rollout) -> bool:
    """Not every timestamp of a task is worth a write of a large object: changes of phase, and ends of tasks, are. So
    what is known of a task is stored before its object is deleted, which takes more than its end."""
    return _gist(stored) != _gist(rollout)


def _gist(rollout: pb.Rollout) -> pb.Rollout:
    out = changed(rollout)
    rows = [(row.task_id, receipt.ends(row)) for row in out.receipt.tasks]
    del out.receipt.tasks[:]
    for task_id, (out_at, drained_at, stopped_at) in rows:
        out.receipt.tasks.add(task_id=task_id, out_of_balancers_at=out_at, drained_at=drained_at, stopped_at=stopped_at)
    return out


def _wake_at(view: View, rollout: pb.Rollout) -> float | None:
    watched = [p.monitor_until for p in rollout.slots if p.phase == pb.SLOT_PHASE_MONITORING]
    return earliest(rollout.deadline_at, *watched)
