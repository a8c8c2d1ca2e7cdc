"""How many slots may change their task at the same time.

A slot in which nothing serves has nothing to lose: it is updated at once. So a version that is broken everywhere is
replaced everywhere, and a slot that is broken cannot hold up the others for ever.

Any other slot counts from the moment that its new task is made until that one was watched for the monitor time and the
old one is gone. So there are never more than replicas + parallelism tasks, and, where the old one must stop first,
never fewer than replicas - parallelism that serve. Updates come first; what they leave is for tasks that must leave
their node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.fitness import is_misplaced, is_still_there, serves
from pyswarm_manager.orchestrator.restart import FRESH, Start, next_start
from pyswarm_manager.orchestrator.slots import Key, Slot
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.plan import earliest
from pyswarm_manager.rollout.progress import IN_FLIGHT, by_key, needs_update, was_tried


@dataclass(slots=True)
class Leeway:
    """What one planning run may do; it is used up while slots are settled.

    `updates`: slots that get a task of the service's spec now. `moves`: how many more serving tasks may be replaced.
    `spare`: how many more may stop before their successor runs. `pinned`: will be updated soon, so are not moved."""

    updates: Mapping[Key, Start] = field(default_factory=dict)
    moves: int = 0
    spare: int = 0
    pinned: frozenset[Key] = frozenset()
    wake_at: float | None = None

    def take_move(self, slot: Slot) -> bool:
        if slot.key in self.pinned:
            return False
        if len(slot.wanted) > 1:
            return True  # it has its second task already
        if self.moves <= 0:
            return False
        self.moves -= 1
        return True

    def take_spare(self) -> bool:
        if self.spare <= 0:
            return False
        self.spare -= 1
        return True


def leeway(view: View, rollout: pb.Rollout | None) -> Leeway:
    """`rollout`: the one being carried out, its progress up to date; None when there is none."""
    phases = {key: p.phase for key, p in by_key(rollout).items()} if rollout is not None else {}
    flying = {slot.key for slot in view.wanted if phases.get(slot.key) in IN_FLIGHT}
    # A node may be paused in the middle of its turn.
    doubled = {slot.key for slot in (*view.wanted, *view.selection.held) if _is_doubled(view, slot)} - flying
    waiting = _waiting(view, rollout, phases)
    starts, wake_at = _due(view, rollout, bool(flying))
    due = [(slot, start) for slot, start in waiting if start.made_at <= view.now]
    updates = {slot.key: start for slot, start in due if not _serves(view, slot)}
    room = view.parallelism - len(flying) - len(updates)
    doubled -= set(updates)
    paced: dict[Key, Start] = {}
    for slot, start in due:
        if not starts or len(paced) >= room:
            break
        if _serves(view, slot) and len(doubled | {*paced, slot.key}) <= max(room, len(doubled | set(paced))):
            paced[slot.key] = start
    pinned = (
        frozenset(slot.key for slot, _ in waiting) if rollout is not None and view.policy.delay <= 0 else frozenset()
    )
    return Leeway(
        updates=updates | paced,
        moves=max(0, room - len(doubled | set(paced))),
        spare=_spare(view, phases),
        pinned=pinned,
        wake_at=earliest(wake_at, *(start.made_at for _, start in waiting if start.made_at > view.now)),
    )


def _is_doubled(view: View, slot: Slot) -> bool:
    """One task stands in for another, without a rollout."""
    if len(slot.wanted) > 1:
        return True
    leaving = any(is_still_there(view.world, task) for task in slot.going)
    return leaving and bool(slot.wanted) and not _serves(view, slot)


def _due(view: View, rollout: pb.Rollout | None, is_flying: bool) -> tuple[bool, float | None]:
    """(may slots begin now, when to look again). With a delay, a batch begins when the one before it is over."""
    delay = view.policy.delay
    if rollout is None or delay <= 0:
        return True, None
    if is_flying:
        return False, None
    due = rollout.batch_finished_at + delay if rollout.batch_finished_at else 0.0
    return view.now >= due, due if view.now < due else None


def _waiting(
    view: View, rollout: pb.Rollout | None, phases: Mapping[Key, pb.SlotPhase.ValueType]
) -> list[tuple[Slot, Start]]:
    """The slots whose task should be of the service's spec and is not, in the order in which they take their turn:
    first those that have two tasks already, then those that must leave their node."""
    if view.is_paused:
        return []
    waiting: list[tuple[Slot, Start]] = []
    failed: list[tuple[Slot, Start]] = []
    for slot in view.wanted:
        if rollout is None:
            if needs_update(view, slot):
                _add(waiting, slot, next_start(slot, view.target, view.now))
        elif phases.get(slot.key) == pb.SLOT_PHASE_WAITING:
            tried = was_tried(view, slot, rollout)
            _add(waiting, slot, next_start(slot, view.target, view.now) if tried else FRESH)
        elif phases.get(slot.key) == pb.SLOT_PHASE_FAILED and needs_update(view, slot):
            _add(failed, slot, next_start(slot, view.target, view.now))
    # A slot that failed is tried again when all others have had their turn.
    return sorted(waiting or failed, key=lambda item: _turn(view, item[0]))


def _add(to: list[tuple[Slot, Start]], slot: Slot, start: Start | None) -> None:
    if start is not None:
        to.append((slot, start))


def _turn(view: View, slot: Slot) -> tuple[bool, bool, Key]:
    return (
        len(slot.wanted) < 2,
        not any(is_misplaced(view.world, task, view.matches) for task in slot.wanted if serves(view.world, task)),
        slot.key,
    )


def _serves(view: View, slot: Slot) -> bool:
    return any(serves(view.world, task) for task in slot.wanted)


def _spare(view: View, phases: Mapping[Key, pb.SlotPhase.ValueType]) -> int:
    """Slots that failed and were given up do not count: their tasks are not what is kept waiting."""
    serving = {slot.key for slot in view.wanted if _serves(view, slot)}
    given_up = {slot.key for slot in view.wanted if phases.get(slot.key) == pb.SLOT_PHASE_FAILED} - serving
    return max(0, len(serving) - (len(view.wanted) - len(given_up) - view.parallelism))
