"""The simulator's ground: time that only moves when nothing else can happen, and processes that freeze and die."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.simulation.virtual import Deadlock, Party, SteadyClock, later, run, world_time


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


def test_a_party_that_is_killed_does_no_more_and_its_children_neither() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        children: list[asyncio.Task[None]] = []
        party = Party("p")

        async def child() -> None:
            while True:
                await asyncio.sleep(1)
                seen.append("child")

        async def parent() -> None:
            children.append(asyncio.create_task(child()))
            asyncio.get_running_loop().call_later(2.5, seen.append, "own timer")
            later(2.5, seen.append, "the world's timer")
            try:
                await asyncio.Event().wait()
            finally:
                party.check()
                seen.append("never")

        party.spawn(parent())
        await asyncio.sleep(1.5)
        party.kill()
        await asyncio.sleep(10)
        assert all(task.done() for task in party.tasks)
        return seen

    assert run(main()) == ["child", "the world's timer"]


def test_a_party_that_is_frozen_goes_on_where_it_was() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        party = Party("p")

        async def work() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                seen.append(loop.time())

        party.spawn(work())
        await asyncio.sleep(1.5)
        party.freeze()
        await asyncio.sleep(10)
        party.thaw()
        await asyncio.sleep(10)
        return seen

    assert run(main()) == [1.0, 11.5, 12.5]


def test_the_clocks_of_hosts_run_at_their_own_speeds() -> None:
    async def main() -> list[tuple[str, float, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float, float]] = []

        async def work(name: str) -> None:
            deadline = loop.time() + 10.0
            while (left := deadline - loop.time()) > 0:  # noqa: ASYNC110 - who waits for a time is not woken before it
                await asyncio.sleep(left)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10.0):
                    await asyncio.Event().wait()
            seen.append((name, world_time(), loop.time()))

        Party("fast", SteadyClock(0.0, 3e6, 1.25)).spawn(work("fast"))
        Party("slow", SteadyClock(-100.0, 5.0, 0.8)).spawn(work("slow"))
        await asyncio.sleep(100)
        return seen

    (fast, fast_at, fast_says), (slow, slow_at, slow_says) = run(main())
    assert (fast, fast_at) == ("fast", pytest.approx(16.0)) and fast_says == pytest.approx(3e6 + 20)
    assert (slow, slow_at) == ("slow", pytest.approx(25.0)) and slow_says == pytest.approx(5 + 80 + 20)


def test_a_party_that_is_deaf_hears_others_but_no_timer() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        party = Party("p")
        told = asyncio.Event()

        async def listen() -> None:
            await told.wait()
            seen.append("told")

        async def wait() -> None:
            await asyncio.sleep(1)
            seen.append("woken")

        party.spawn(listen())
        party.spawn(wait())
        await asyncio.sleep(0.5)
        party.turn_deaf()
        await asyncio.sleep(5)
        told.set()
        await asyncio.sleep(5)
        party.freeze()
        party.hear()
        await asyncio.sleep(5)
        assert seen == ["told"], "it is frozen still"
        party.thaw()
        await asyncio.sleep(1)
        return seen

    assert run(main()) == ["told", "woken"]
