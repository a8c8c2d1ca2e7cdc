"""A store whose watches stand still, without an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from pyswarm_core.store.base import WatchBatch
from pyswarm_core.store.memory import MemoryStore


class StandingStore(MemoryStore):
    """Its watches say nothing while `flows` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.flows = asyncio.Event()
        self.flows.set()

    async def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        async with aclosing(super().watch(prefix, from_revision=from_revision, on_connected=on_connected)) as batches:
            async for batch in batches:
                await self.flows.wait()
                yield batch
