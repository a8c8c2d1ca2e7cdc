"""Steady load: new connections one after the other from several clients at once, each answer checked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from tests.integration.network.bed import Place

T = TypeVar("T")


@dataclass
class Load:
    """`answers` by server; `failures` with their reason; `slowest` in seconds."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    stopping: bool = False

    @property
    def total(self) -> int:
        return self.answers.total()

    async def _client(self, place: Place, address: str, port: int, pause: float) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            started = loop.time()
            try:
                answer = await place.ask(address, port, timeout=15)
                self.answers[answer.split()[0]] += 1
            except (OSError, TimeoutError) as e:
                self.failures.append(f"{place.name} → {address}:{port}: {type(e).__name__} {e}")
            self.slowest = max(self.slowest, loop.time() - started)
            await asyncio.sleep(pause)

    async def until(self, more: int, timeout: float = 90.0) -> None:
        """That many more answers."""
        wanted = self.total + more

        async def reached() -> bool:
            return self.total >= wanted

        await eventually(reached, timeout)


@asynccontextmanager
async def load(*ways: tuple[Place, str, int], clients: int = 3, pause: float = 0.002) -> AsyncIterator[Load]:
    state = Load()
    tasks = [
        asyncio.create_task(state._client(place, address, port, pause))
        for place, address, port in ways
        for _ in range(clients)
    ]
    try:
        yield state
    finally:
        state.stopping = True
        await asyncio.gather(*tasks)


async def eventually(check: Callable[[], Awaitable[T]], timeout: float = 10.0) -> T:
    """Waits until the (async) check is true; returns what it gave."""
    async with asyncio.timeout(timeout):
        while True:
            if result := await check():
                return result
            await asyncio.sleep(0.02)
