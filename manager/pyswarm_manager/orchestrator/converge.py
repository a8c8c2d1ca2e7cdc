"""`plan`: everything that is to be done for one service now. It composes, and decides nothing by itself.

Each slot's writes are one transaction, and each is right whatever becomes of the others. Each changes something that it
compares: two runs on the same world cannot both create tasks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator import exclusive, history, removal
from pyswarm_manager.orchestrator.fitness import Matches
from pyswarm_manager.orchestrator.redate import redate
from pyswarm_manager.orchestrator.settle import Settled, abandon, dismiss, settle
from pyswarm_manager.orchestrator.transactions import guarded, pack
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.plan import Acks, Delete, Plan, Put, World, Write, earliest
from pyswarm_manager.rollout import machine
from pyswarm_manager.rollout.batches import Leeway, leeway
from pyswarm_manager.scheduler import constraints


def plan(
    world: World,
    acks: Acks,
    service_id: str,
    now: float,
    rng: random.Random,
    *,
    matches: Matches = constraints.matches,
) -> Plan:
    """`acks` is part of every planner's world; what was confirmed is in `balanced_at` and `released` already."""
    del acks
    given_up = exclusive.given_up(world, service_id, now)
    if given_up:
        return Plan(steps=tuple((Put(task),) for task in given_up))
    service = world.services.get(service_id)
    if service is None or service.removing:
        return removal.plan(world, service_id, now)
    view = View.of(world, service, now, rng, matches)
    redated = redate(view.slots.values(), now)
    if redated:
        return Plan(steps=pack(redated))
    overtaken = machine.supersede(view)
    rollout: pb.Rollout | None = None
    first: Sequence[Write] = overtaken
    wake_at: float | None = None
    if view.is_active:
        advance = machine.advance(view)
        if advance.is_turn:
            return Plan(steps=((*overtaken, *advance.writes),), notes=advance.notes)
        rollout, wake_at = advance.rollout, advance.wake_at
        first = (*overtaken, *advance.writes)
    room = leeway(view, rollout)
    settled = _settled(view, room)
    groups = [(*first,), *(one.writes for one in settled)]
    deletes: list[Sequence[Write]] = [(Delete(task),) for task in history.forgotten_tasks(view)]
    deletes += [(Delete(old),) for old in history.forgotten_rollouts(view)]
    return Plan(
        steps=guarded((group for group in groups if group), rollout or view.rollout or service) + pack(deletes),
        wake_at=earliest(wake_at, room.wake_at, *(one.wake_at for one in settled)),
        notes=tuple(note for one in settled for note in one.notes),
    )


def _settled(view: View, room: Leeway) -> list[Settled]:
    """Slots that end come first: they make room."""
    chosen = view.selection
    done = {slot.key for slot in (*chosen.wanted, *chosen.held, *chosen.surplus)}
    return [
        *(dismiss(view, slot) for slot in chosen.surplus),
        *(settle(view, slot, room) for slot in (*chosen.wanted, *chosen.held)),
        *(abandon(view, slot) for slot in view.slots.values() if slot.key not in done),
    ]
