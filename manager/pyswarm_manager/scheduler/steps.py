"""Cuts a run's writes into transactions that the store takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import Delete, Write

MAX_WRITES = 127  # beside the leader's compare; etcd's default is 128 operations
MAX_BYTES = 1_000_000  # of a transaction: etcd refuses 1.5 MiB, keys and framing included


_SLACK = 2048  # by how much tasks of one spec may differ: names, addresses, messages


def steps_of(networks: Sequence[Write], tasks: Sequence[Write]) -> tuple[tuple[Write, ...], ...]:
    """Networks first, in steps of their own unless all fits into one."""
    everything = (*networks, *tasks)
    if not everything:
        return ()
    if len(everything) <= MAX_WRITES and sum(_sizes(everything)) <= MAX_BYTES:
        return (everything,)
    return (*_cut(networks), *_cut(tasks))


def _sizes(writes: Iterable[Write]) -> Iterator[int]:
    """Bytes of each, from above. A task's spec is nearly all of it, so one task of each spec is measured: measuring all
    of them would take a tenth of the scheduler's time."""
    known: dict[tuple[str, int], int] = {}
    for write in writes:
        message = write.message
        if isinstance(write, Delete):
            yield 0
        elif isinstance(message, pb.Task):
            key = (message.service_id, message.spec_version)
            size = known.get(key)
            if size is None:
                size = known[key] = message.ByteSize() + _SLACK
            yield size
        else:
            yield message.ByteSize()


def _cut(writes: Sequence[Write]) -> Iterator[tuple[Write, ...]]:
    step: list[Write] = []
    total = 0
    for write, size in zip(writes, _sizes(writes), strict=True):
        if step and (len(step) == MAX_WRITES or total + size > MAX_BYTES):
            yield tuple(step)
            step, total = [], 0
        step.append(write)
        total += size
    if step:
        yield tuple(step)
