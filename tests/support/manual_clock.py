"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools


async def settle(rounds: int = 50) -> None:
    """Lets everything that is ready run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class ManualClock:
    """A `pyswarm_manager.clock.Clock`."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(0.0, seconds), next(self._tickets), future))
        await future

    @property
    def next_at(self) -> float | None:
        """When the next sleeper is due."""
        return min((at for at, _, future in self._sleepers if not future.done()), default=None)

    async def advance(self, seconds: float) -> None:
        """Wakes sleepers in order, each at its own time, and lets what they start run."""
        await settle()
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
                await settle()
        self._now = end
        await settle()
