"""A service's tasks by slot.

A slot exists as long as one of its tasks is meant to run (desired RUNNING or READY), a dead one included: a dead task
that got a successor is told SHUTDOWN, so the one that is not told is the slot's last and keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.tasks import is_terminal, is_wanted

TICK = 0.001  # seconds between the creations of a slot's tasks, where the clock tells no difference

Key = tuple[int, str]  # (slot, "") of a replicated service, (0, node id) of a global one


@dataclass(frozen=True, slots=True)
class Slot:
    """Tasks of each kind, oldest first."""

    key: Key
    wanted: tuple[pb.Task, ...] = ()  # meant to run, and alive
    ended: tuple[pb.Task, ...] = ()  # meant to run, and dead: nobody has looked at it yet, or there is no restart
    going: tuple[pb.Task, ...] = ()  # told to stop, and alive
    past: tuple[pb.Task, ...] = ()  # told to stop, and dead: history

    @property
    def exists(self) -> bool:
        return bool(self.wanted or self.ended)

    @property
    def tasks(self) -> tuple[pb.Task, ...]:
        return self.wanted + self.ended + self.going + self.past


def age(task: pb.Task) -> tuple[float, str]:
    """Sorts oldest first; the same for everybody."""
    return task.created_at, task.id


def group(tasks: Iterable[pb.Task], *, is_global: bool) -> dict[Key, Slot]:
    """In the order of their keys."""
    found: dict[Key, list[pb.Task]] = {}
    for task in tasks:
        key = (0, task.node_id) if is_global else (task.slot, "")
        found.setdefault(key, []).append(task)
    return {key: _slot(key, sorted(found[key], key=age)) for key in sorted(found)}


def _slot(key: Key, tasks: list[pb.Task]) -> Slot:
    return Slot(
        key,
        wanted=tuple(t for t in tasks if is_wanted(t) and not is_terminal(t)),
        ended=tuple(t for t in tasks if is_wanted(t) and is_terminal(t)),
        going=tuple(t for t in tasks if not is_wanted(t) and not is_terminal(t)),
        past=tuple(t for t in tasks if not is_wanted(t) and is_terminal(t)),
    )
