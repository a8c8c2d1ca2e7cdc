"""When a rollout has got where it was to get.

Failures within the allowed ratio are what the user put up with: those slots hold nothing up, the restart policy goes on
with them.
"""

from __future__ import annotations

from collections.abc import Set

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.fitness import is_balanced
from pyswarm_manager.orchestrator.slots import Key, Slot
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.rollout import failure, progress
from pyswarm_manager.tasks import is_wanted


def is_complete(view: View, rollout: pb.Rollout) -> bool:
    """Every wanted slot is right and was watched, and everything else is gone."""
    return _are_right(view, rollout, pb.SLOT_PHASE_DONE) and not left_over(view, rollout)


def is_only_draining(view: View, rollout: pb.Rollout) -> bool:
    """Everything new is there; something old still waits for its connections to end."""
    return _are_right(view, rollout, pb.SLOT_PHASE_DONE, pb.SLOT_PHASE_DRAINING) and not any(
        is_wanted(task) for task in left_over(view, rollout)
    )


def left_over(view: View, rollout: pb.Rollout) -> list[pb.Task]:
    """Alive, and of another spec or in a slot that is not wanted. (A node that is away holds nothing up.)"""
    wanted = {slot.key for slot in view.wanted}
    ignored = _excused(view, rollout) | {slot.key for slot in view.selection.held}
    return [
        task
        for slot, task in view.living()
        if slot.key not in ignored
        and not _is_dormant(view, slot)
        and (slot.key not in wanted or task.spec != view.target)
    ]


def _are_right(view: View, rollout: pb.Rollout, *phases: pb.SlotPhase.ValueType) -> bool:
    excused = _excused(view, rollout)
    by_key = progress.by_key(rollout)
    return all(
        slot.key in excused or (by_key[slot.key].phase in (*phases, pb.SLOT_PHASE_FAILED) and _is_right(view, slot))
        for slot in view.wanted
    )


def _excused(view: View, rollout: pb.Rollout) -> Set[Key]:
    if failure.is_over_ratio(view, rollout.slots):
        return set()
    return {key for key, p in progress.by_key(rollout).items() if p.phase == pb.SLOT_PHASE_FAILED}


def _is_right(view: View, slot: Slot) -> bool:
    if progress.is_finished_task(view, slot):
        return True
    task = view.current(slot)
    return task is not None and is_balanced(view.world, task)


def _is_dormant(view: View, slot: Slot) -> bool:
    """Of a global service, on a node whose state is not known: it is no concern of anybody's now."""
    node = view.world.nodes.get(slot.key[1])
    return node is not None and node.state != pb.NODE_STATE_READY
