"""How far each slot is, told from its tasks. What cannot be told from them is remembered in the rollout: that a slot
failed, that it was done, until when it is watched, and which task it had before."""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.fitness import best, is_balanced, is_still_there, is_unhealthy, serves
from pyswarm_manager.orchestrator.restart import is_done, next_start
from pyswarm_manager.orchestrator.slots import Key, Slot, age
from pyswarm_manager.orchestrator.view import View

IN_FLIGHT = (pb.SLOT_PHASE_STARTING, pb.SLOT_PHASE_DRAINING, pb.SLOT_PHASE_MONITORING)


def derive(view: View, rollout: pb.Rollout) -> list[pb.SlotProgress]:
    """For every wanted slot, in order. `rollout`: as it is stored."""
    stored = {(p.slot, p.node_id): p for p in rollout.slots}
    return [_of_slot(view, rollout, slot, stored.get(slot.key)) for slot in view.wanted]


def by_key(rollout: pb.Rollout) -> Mapping[Key, pb.SlotProgress]:
    return {(p.slot, p.node_id): p for p in rollout.slots}


def needs_update(view: View, slot: Slot) -> bool:
    """It has something of another spec, and nothing of the service's that is of any use."""
    if view.current(slot) is not None:
        return False
    if slot.wanted:
        return any(task.spec != view.target for task in slot.wanted)
    return bool(slot.ended) and max(slot.ended, key=age).spec != view.target


def needs_another_try(view: View, slot: Slot, rollout: pb.Rollout) -> bool:
    """It was given up before this rollout began: the user's new request is a new chance."""
    if slot.wanted or not slot.ended:
        return False
    last = max(slot.ended, key=age)
    return (
        last.spec == view.target
        and not is_done(last)
        and not was_tried(view, slot, rollout)
        and next_start(slot, view.target, view.now) is None
    )


def was_tried(view: View, slot: Slot, rollout: pb.Rollout) -> bool:
    return any(task.rollout_id == rollout.id and task.spec == view.target for task in slot.tasks)


def is_finished_task(view: View, slot: Slot) -> bool:
    """Its last task did what it was for."""
    return not slot.wanted and bool(slot.ended) and slot.ended[-1].spec == view.target and is_done(slot.ended[-1])


def blamed(view: View, rollout: pb.Rollout, slot: Slot, stored: pb.SlotProgress | None) -> pb.Task | None:
    """The rollout's task in this slot that failed. A node that was lost is nobody's fault, and neither is a host that
    was restarted, as long as the policy allows another task to show what the version is worth."""
    for task in slot.tasks:
        ours = task.rollout_id == rollout.id or (stored is not None and stored.new_task_id == task.id)
        if not ours or task.leaving or task.spec != view.target:
            continue
        if task.status.ended_with_host and next_start(slot, view.target, view.now) is not None:
            continue
        if task.status.state in (pb.TASK_STATE_FAILED, pb.TASK_STATE_REJECTED) or is_unhealthy(task):
            return task
        if task.status.state == pb.TASK_STATE_COMPLETE and task.spec.restart.condition == spec.RESTART_CONDITION_ANY:
            return task  # it was to run for ever
    return None


def _of_slot(view: View, rollout: pb.Rollout, slot: Slot, stored: pb.SlotProgress | None) -> pb.SlotProgress:
    progress = pb.SlotProgress(slot=slot.key[0], node_id=slot.key[1])
    if stored is not None:
        progress.CopyFrom(stored)
    task = view.current(slot)
    if task is not None and task.id != progress.new_task_id:
        progress.new_task_id = task.id
        progress.monitor_until = 0
    progress.phase = _phase(view, rollout, slot, stored, progress, task)
    if progress.phase == pb.SLOT_PHASE_WAITING or not progress.old_task_id:
        old = best(view.world, [t for t in slot.wanted or slot.ended if t.spec != view.target])
        progress.old_task_id = old.id if old is not None else ""
    return progress


def _phase(
    view: View,
    rollout: pb.Rollout,
    slot: Slot,
    stored: pb.SlotProgress | None,
    progress: pb.SlotProgress,
    task: pb.Task | None,
) -> pb.SlotPhase.ValueType:
    if stored is not None and stored.phase in (pb.SLOT_PHASE_FAILED, pb.SLOT_PHASE_DONE):
        return stored.phase
    if blamed(view, rollout, slot, stored) is not None:
        return pb.SLOT_PHASE_FAILED
    if task is None:
        if is_finished_task(view, slot):
            return pb.SLOT_PHASE_DONE
        waits = needs_update(view, slot) or needs_another_try(view, slot, rollout)
        return pb.SLOT_PHASE_WAITING if waits else pb.SLOT_PHASE_STARTING
    others = [t for t in slot.wanted + slot.going if t is not task and is_still_there(view.world, t)]
    if serves(view.world, task) and not progress.monitor_until:
        progress.monitor_until = view.now + view.policy.monitor
    # It may have been stored by a leader whose clock was ahead.
    progress.monitor_until = min(progress.monitor_until, view.now + view.policy.monitor)
    if not is_balanced(view.world, task):
        waits = task.desired_state == pb.TASK_STATE_READY and any(t.leaving for t in others)
        return pb.SLOT_PHASE_DRAINING if waits else pb.SLOT_PHASE_STARTING
    if others:
        return pb.SLOT_PHASE_DRAINING
    was_there = stored is None and task.rollout_id != rollout.id
    if was_there or view.now >= progress.monitor_until:
        return pb.SLOT_PHASE_DONE
    return pb.SLOT_PHASE_MONITORING
