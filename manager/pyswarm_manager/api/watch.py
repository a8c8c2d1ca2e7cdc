"""A rollout as it goes, for whoever waits for it: its state now, and again after each change, coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

from pyswarm_core.errors import NotFound
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.api.views import FINISHED, rollout_view
from pyswarm_manager.clock import Clock
from pyswarm_manager.loops import LiveWorld
from pyswarm_manager.world import Change

# Between two views of a rollout that goes on. Its end is told at once.
PACE = 0.05  # seconds


async def watch_rollout(world: LiveWorld, rollout_id: str, clock: Clock) -> AsyncIterator[control.RolloutView]:
    """Ends after the view that shows it finished, or when its service is gone. NotFound: no such rollout."""
    rollout = world.rollouts.get(rollout_id)
    if rollout is None:
        raise NotFound(f"There is no rollout {rollout_id!r}.")
    service_id = rollout.service_id
    changed, finished = asyncio.Event(), asyncio.Event()

    def look(changes: Sequence[Change], revision: int) -> None:
        if any(_concerns(change, service_id, rollout_id) for change in changes):
            changed.set()
            now = world.rollouts.get(rollout_id)
            if now is None or now.state in FINISHED:
                finished.set()

    cancel = world.subscribe(look)
    try:
        while rollout is not None:
            changed.clear()
            yield rollout_view(world, rollout)
            if rollout.state in FINISHED or service_id not in world.services:
                return
            await changed.wait()
            await _pause(finished, clock)
            rollout = world.rollouts.get(rollout_id)
    finally:
        cancel()


def _concerns(change: Change, service_id: str, rollout_id: str) -> bool:
    match change.kind:
        case "task":
            return any(cast("pb.Task", t).service_id == service_id for t in (change.old, change.new) if t is not None)
        case "rollout":
            return change.id == rollout_id
        case "service":
            return change.id == service_id
        case _:
            return False


async def _pause(finished: asyncio.Event, clock: Clock) -> None:
    if finished.is_set():
        return
    tasks = [asyncio.ensure_future(finished.wait()), asyncio.ensure_future(clock.sleep(PACE))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
