"""A leader whose view of the store stands still: its writes arrive, and it does not see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from tests.support.manager import Cluster, eventually

from pyswarm_core import kinds
from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.store.base import WatchBatch
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb


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


async def test_two_nodes_that_register_meanwhile_get_two_numbers() -> None:
    store = StandingStore()
    async with Cluster.make(store=store) as cluster:

        async def catch_up(revision: int) -> None:
            if cluster.cache.revision < revision:
                raise StoreUnavailable("the watch has not delivered it yet")

        await cluster.lead(catch_up=catch_up)
        store.flows.clear()

        def numbers() -> list[int]:
            entries = store.list_now(kinds.PREFIX + "node/").entries
            return sorted(pb.Node.FromString(entry.value).number for entry in entries)

        async with cluster.agent("n1").running(), cluster.agent("n2").running():
            await eventually(lambda: len(numbers()) == 2)
            assert len(set(numbers())) == 2
            store.flows.set()
            await eventually(lambda: len(cluster.world.nodes) == 2)
