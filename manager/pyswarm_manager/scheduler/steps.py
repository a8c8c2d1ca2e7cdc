"""Cuts a run's writes into transactions that the store takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyswarm_manager.plan import Put, Write

MAX_WRITES = 127  # beside the leader's compare; etcd's default is 128 operations
MAX_BYTES = 1_000_000  # of a transaction: etcd refuses 1.5 MiB, keys and framing included


def steps_of(networks: Sequence[Write], tasks: Sequence[Write]) -> tuple[tuple[Write, ...], ...]:
    """Networks first, in steps of their own unless all fits into one."""
    everything = (*networks, *tasks)
    if not everything:
        return ()
    if len(everything) <= MAX_WRITES and sum(map(_size, everything)) <= MAX_BYTES:
        return (everything,)
    return (*_cut(networks), *_cut(tasks))


def _size(write: Write) -> int:
    return write.message.ByteSize() if isinstance(write, Put) else 0


def _cut(writes: Iterable[Write]) -> Iterable[tuple[Write, ...]]:
    step: list[Write] = []
    total = 0
    for write in writes:
        size = _size(write)
        if step and (len(step) == MAX_WRITES or total + size > MAX_BYTES):
            yield tuple(step)
            step, total = [], 0
        step.append(write)
        total += size
    if step:
        yield tuple(step)
