"""Virtual time: nothing moves until the test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class VirtualTime:
    """`clock` and `sleep` are for whatever takes them injected; `advance` wakes the sleepers in order of time."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()

    def clock(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._tickets), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Also lets everything that became ready run."""
        until = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._now = until
        await self.settle()

    def freeze(self, seconds: float) -> None:
        """Time passes and nobody may run, as when the process is stopped."""
        self._now += seconds

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
