"""Tasks that are dated in the future: an earlier leader's clock was ahead of this one's, or an agent's was that made a
successor while no leader could be reached.

They are dated now, in the order that they had: whatever is counted from such a time would otherwise wait for this
leader's clock to get there.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.restart import delay
from pyswarm_manager.orchestrator.slots import TICK, Slot, age
from pyswarm_manager.plan import Put, Write, changed

SLACK = 1.0  # seconds: clocks that agree differ by less, and nothing comes of it


def redate(slots: Iterable[Slot], now: float) -> list[tuple[Write, ...]]:
    """Each slot's that change."""
    return [
        tuple(Put(_dated(task, number, now)) for number, task in enumerate(sorted(slot.tasks, key=age, reverse=True)))
        for slot in slots
        if any(_is_ahead(task, now) for task in slot.tasks)
    ]


def _is_ahead(task: pb.Task, now: float) -> bool:
    return max(task.created_at, task.window_at) > now + SLACK or task.start_after > _latest_start(task, now)


def _latest_start(task: pb.Task, now: float) -> float:
    """No start waits for longer than its policy says."""
    return now + delay(task.spec.restart, max(1, task.quick_failures)) + SLACK if task.start_after else 0.0


def _dated(task: pb.Task, number: int, now: float) -> pb.Task:
    """`number`: how many of its slot are younger."""
    out = changed(task)
    out.created_at = min(out.created_at, now - number * TICK)
    out.window_at = min(out.window_at, now)
    out.start_after = min(out.start_after, _latest_start(task, now))
    return out
