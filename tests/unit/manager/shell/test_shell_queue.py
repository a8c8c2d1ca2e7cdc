from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.support.manual_clock import ManualClock, settle

from pyswarm_core.errors import Conflict, Deposed, StoreUnavailable
from pyswarm_manager.queue import CONFLICT, ERROR, KeyQueue


class Recorder:
    """A worker that notes its runs, and can be told to wait, to fail or to ask for a later look."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.runs: list[tuple[str, float]] = []
        self.now_running: set[str] = set()
        self.most_at_once = 0
        self.gate: asyncio.Event | None = None
        self.answers: dict[str, list[float | Exception | None]] = {}

    async def __call__(self, key: str) -> float | None:
        assert key not in self.now_running, "two workers of one key"
        self.now_running.add(key)
        self.most_at_once = max(self.most_at_once, len(self.now_running))
        self.runs.append((key, self.clock.now()))
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.now_running.discard(key)
        answers = self.answers.get(key)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.runs]


@asynccontextmanager
async def running(queue: KeyQueue) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(queue.run())
    await settle()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def work(clock: ManualClock) -> Recorder:
    return Recorder(clock)


@pytest.fixture
def make(clock: ManualClock, work: Recorder) -> Callable[..., KeyQueue]:
    return lambda **options: KeyQueue("test", work, clock, random.Random(1), **options)


async def test_keys_added_before_the_start_run_once_each(make, work) -> None:
    queue = make()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert queue.depth == 2
    async with running(queue):
        assert work.keys == ["a", "b"]
        assert queue.is_idle


async def test_a_key_added_while_it_runs_runs_once_more_and_never_twice_at_once(make, work) -> None:
    work.gate = asyncio.Event()
    queue = make()
    async with running(queue):
        queue.add("a")
        await settle()
        for _ in range(10):
            queue.add("a")
        await settle()
        assert work.keys == ["a"]
        work.gate.set()
        await settle()
        assert work.keys == ["a", "a"]


async def test_parallel_bounds_the_workers_and_starves_nobody(make, work) -> None:
    work.gate = asyncio.Event()
    queue = make(parallel=3)
    async with running(queue):
        for n in range(10):
            queue.add(str(n))
        await settle()
        assert len(work.runs) == 3
        work.gate.set()
        await settle()
        assert sorted(work.keys) == sorted(str(n) for n in range(10))
        assert work.most_at_once == 3


async def test_many_keys_leave_room_for_others_between_them(make, work, clock) -> None:
    queue = make()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while len(work.runs) < 20:
            turns += 1
            await settle(1)

    async with running(queue):
        beside = asyncio.create_task(other())
        for n in range(20):
            queue.add(str(n))
        await settle(200)
        assert len(work.runs) == 20
        await beside
        assert turns >= 15


async def test_a_worker_is_woken_at_the_time_it_asked_for(make, work, clock) -> None:
    start = clock.now()
    work.answers["a"] = [start + 60]
    queue = make()
    async with running(queue):
        queue.add("a")
        await clock.advance(59.9)
        assert work.keys == ["a"]
        await clock.advance(0.2)
        assert work.runs[1:] == [("a", start + 60)]
        await clock.advance(1000)
        assert len(work.runs) == 2


async def test_a_worker_that_asks_for_the_present_does_not_spin(make, work, clock) -> None:
    work.answers["a"] = [clock.now()] * 1000
    queue = make()
    async with running(queue):
        queue.add("a")
        await settle()
        assert work.keys == ["a"], "time stands still"
        await clock.advance(0.0105)
        assert len(work.keys) == 11


async def test_a_later_look_replaces_the_earlier_wish(make, work, clock) -> None:
    work.answers["a"] = [clock.now() + 60, None]
    queue = make()
    async with running(queue):
        queue.add("a")
        await settle()
        queue.add("a")
        await clock.advance(1000)
        assert work.keys == ["a", "a"]
        assert queue.next_due is None


async def test_an_earlier_timer_overtakes_a_later_one(make, work, clock) -> None:
    start = clock.now()
    work.answers = {"late": [start + 100], "early": [start + 10]}
    queue = make()
    async with running(queue):
        queue.add("late")
        await settle()
        queue.add("early")
        await clock.advance(200)
        assert work.runs[2:] == [("early", start + 10), ("late", start + 100)]


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_a_wall_clock_that_jumps_neither_fires_nor_delays_timers(make, work, clock, jump: float) -> None:
    steady = clock.now
    wall = ShiftedClock(clock)
    queue = KeyQueue("test", work, wall, random.Random(1), steady=steady)
    start = steady()
    work.answers["a"] = [wall.now() + 10]
    async with running(queue):
        queue.add("a")
        queue.add_at("b", wall.now() + 20)
        await clock.advance(1)
        wall.shift = jump
        await clock.advance(30)
        assert work.runs == [("a", start), ("a", start + 10), ("b", start + 20)]


class ShiftedClock:
    """A wall clock that somebody sets."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.shift = 0.0

    def now(self) -> float:
        return self._clock.now() + self.shift

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


async def test_add_at_keeps_the_earliest(make, work, clock) -> None:
    start = clock.now()
    queue = make()
    async with running(queue):
        queue.add_at("a", start + 50)
        queue.add_at("a", start + 20)
        queue.add_at("a", start + 80)
        await clock.advance(100)
        assert work.runs == [("a", start + 20)]


async def test_a_conflict_is_retried_within_milliseconds(make, work, clock) -> None:
    work.answers["a"] = [Conflict("x"), Conflict("x"), None]
    queue = make()
    async with running(queue):
        queue.add("a")
        await clock.advance(3 * CONFLICT.first)
        assert len(work.runs) == 3


async def test_an_error_backs_off_doubling_up_to_the_last_and_success_forgets_it(make, work, clock) -> None:
    work.answers["a"] = [StoreUnavailable("away") for _ in range(12)] + [None, StoreUnavailable("again"), None]
    queue = make()
    async with running(queue):
        queue.add("a")
        await clock.advance(1000)
        times = [at for _, at in work.runs]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert len(gaps) == 12
        for n, gap in enumerate(gaps, 1):
            whole = min(ERROR.last, ERROR.first * 2 ** (n - 1))
            assert whole / 2 <= gap <= whole
        work.runs.clear()
        queue.add("a")
        await clock.advance(ERROR.first)
        assert len(work.runs) == 2


async def test_an_unexpected_error_stops_neither_the_key_nor_the_others(make, work, clock) -> None:
    work.answers["a"] = [ZeroDivisionError(), None]
    queue = make()
    async with running(queue) as task:
        queue.add("a")
        queue.add("b")
        await clock.advance(1)
        assert sorted(work.keys) == ["a", "a", "b"]
        assert not task.done()


async def test_deposed_ends_the_queue_and_cancels_what_runs(make, work) -> None:
    work.gate = asyncio.Event()
    queue = make()
    async with running(queue) as task:
        queue.add("slow")
        await settle()
        work.gate, gate = None, work.gate
        work.answers["a"] = [Deposed("not the leader")]
        queue.add("a")
        with pytest.raises(Deposed):
            await task
        assert work.now_running == set()
        assert not gate.is_set()
        queue.add("b")
        await settle()
        assert "b" not in work.keys
