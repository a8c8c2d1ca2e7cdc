"""Packs groups of writes into transactions: a group is never torn, whatever else is carried out or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyswarm_manager.plan import Put, Write

MAX_WRITES = 127  # beside the leader's compare; etcd's default is 128 operations
MAX_BYTES = 1_000_000  # etcd refuses 1.5 MiB, keys and framing included


def pack(groups: Iterable[Sequence[Write]]) -> tuple[tuple[Write, ...], ...]:
    """In order, as many whole groups to a transaction as fit. A group alone must fit (a slot's always do)."""
    steps: list[tuple[Write, ...]] = []
    step: list[Write] = []
    total = 0
    for group in groups:
        size = sum(write.message.ByteSize() for write in group if isinstance(write, Put))
        if step and (len(step) + len(group) > MAX_WRITES or total + size > MAX_BYTES):
            steps.append(tuple(step))
            step, total = [], 0
        step.extend(group)
        total += size
    if step:
        steps.append(tuple(step))
    return tuple(steps)
