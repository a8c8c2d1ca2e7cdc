"""What tests of anything on a store need again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from pyswarm_core.store.base import Compare, Delete, Event, Field, Put, Store, WatchBatch


async def put(store: Store, key: str, value: str | bytes = b"", *, lease: int = 0) -> int:
    """Without conditions; returns the revision."""
    data = value.encode() if isinstance(value, str) else value
    return (await store.txn([], [Put(key, data, lease)])).revision


async def delete(store: Store, key: str) -> int:
    return (await store.txn([], [Delete(key)])).revision


def absent(key: str) -> Compare:
    return Compare(key, Field.CREATE, 0)


async def batches(store: Store, prefix: str, from_revision: int, events: int, timeout: float = 20) -> list[WatchBatch]:
    """Watches until so many events have come; batches without events are left out."""
    found: list[WatchBatch] = []
    async with asyncio.timeout(timeout), aclosing(store.watch(prefix, from_revision=from_revision)) as watch:
        async for batch in watch:
            if batch.events:
                found.append(batch)
            if sum(len(b.events) for b in found) >= events:
                break
    return found


def flat(batches: list[WatchBatch]) -> list[Event]:
    return [event for batch in batches for event in batch.events]


async def eventually(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Returns when the condition holds; TimeoutError otherwise."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - any condition, known to nobody as an event
            await asyncio.sleep(0.005)
