"""The simulator's ground: time that only moves when nothing else can happen."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.simulation.virtual import Deadlock, run


def test_an_hour_passes_in_no_time() -> None:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, str]] = []

        async def tick(name: str, period: float) -> None:
            while loop.time() < 3600:
                await asyncio.sleep(period)
                seen.append((loop.time(), name))

        await asyncio.gather(tick("a", 600), tick("b", 900))
        return seen

    seen = run(main())
    assert sorted(name for _, name in seen) == ["a"] * 6 + ["b"] * 4
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1][0] == pytest.approx(3600)


def test_waiting_for_what_cannot_come_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())


def test_threads_are_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(time.time)

    with pytest.raises(RuntimeError, match="thread"):
        run(main())


def test_the_order_is_the_same_each_time() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def one(number: int) -> None:
            for _ in range(3):
                await asyncio.sleep(0.1 * (number % 3))
                order.append(number)

        await asyncio.gather(*(one(n) for n in range(20)))
        return order

    assert run(main()) == run(main())
