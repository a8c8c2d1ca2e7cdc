"""Packs groups of writes into transactions: a group is never torn, whatever else is carried out or not; and each
transaction happens once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyswarm_core.kinds import Stored
from pyswarm_manager.plan import Put, Write

MAX_WRITES = 126  # beside a guard, and the leader's compare; etcd's default is 128 operations
MAX_BYTES = 1_000_000  # etcd refuses 1.5 MiB, keys and framing included


def pack(groups: Iterable[Sequence[Write]], *, room: int = 0) -> tuple[tuple[Write, ...], ...]:
    """In order, as many whole groups to a transaction as fit, with `room` bytes to spare. A group alone must fit (a
    slot's always do)."""
    steps: list[tuple[Write, ...]] = []
    step: list[Write] = []
    total = room
    for group in groups:
        size = sum(write.message.ByteSize() for write in group if isinstance(write, Put))
        if step and (len(step) + len(group) > MAX_WRITES or total + size > MAX_BYTES):
            steps.append(tuple(step))
            step, total = [], room
        step.extend(group)
        total += size
    if step:
        steps.append(tuple(step))
    return tuple(steps)


def guarded(groups: Iterable[Sequence[Write]], guard: Stored) -> tuple[tuple[Write, ...], ...]:
    """Packed. A transaction that only creates compares nothing that it changes: planned again on a world that has not
    seen it, it would create as much again; and one that arrives late, after its repetition, what has been deleted
    since. So `guard`, which is stored, is written with it as it is."""
    steps = pack(groups, room=guard.ByteSize())
    return tuple(step if any(write.message.version for write in step) else (*step, Put(guard)) for step in steps)
