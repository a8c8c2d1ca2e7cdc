"""One queue of keys, one worker per key: the engine of every loop.

Level-triggered: a key says "look again", not what happened. Adding a key that waits changes nothing; adding one that
is being worked on makes it run once more afterwards. A worker returns the time at which it wants to look again
though nothing has changed. There is no polling: idle keys cost nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyswarm_core.errors import Conflict, Deposed, PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_manager.clock import Clock

log = get_logger("manager.queue")

Worker = Callable[[str], Awaitable[float | None]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds. Doubles from `first` to `last`, each with full jitter in its upper half."""

    first: float
    last: float

    def delay(self, failures: int, rng: random.Random) -> float:
        whole = min(self.last, self.first * 2.0 ** min(failures - 1, 32))
        return whole * (0.5 + rng.random() / 2)


# A conflict is another writer's success: the next look usually settles it. An error may last.
CONFLICT = Backoff(0.002, 0.5)
ERROR = Backoff(0.1, 30.0)
# Before a worker looks again by its own wish. Unix seconds cannot tell a quarter of a microsecond: one that is woken a
# trifle too early by its own reckoning would spin.
SOONEST = 0.001


class KeyQueue:
    """`parallel` bounds how many keys are worked on at once, so that a start with 5,000 keys does not flood the store.
    `observe(key, waited, took)` is told of each run, in seconds. `steady`: seconds of a clock that nobody sets, which
    timers run by, so that a jump of `clock` neither fires nor delays them; by default `clock`'s."""

    def __init__(
        self,
        name: str,
        worker: Worker,
        clock: Clock,
        rng: random.Random,
        *,
        parallel: int = 32,
        observe: Callable[[str, float, float], None] | None = None,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._name = name
        self._worker = worker
        self._clock = clock
        self._steady = steady or clock.now
        self._rng = rng
        self._parallel = parallel
        self._observe = observe
        self._ready: dict[str, float] = {}  # key → since when; in order of arrival
        self._running: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, float] = {}  # key → when to look again, in steady seconds
        self._heap: list[tuple[float, str]] = []  # of _due; entries that differ from it are stale
        self._failures: dict[str, int] = {}
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0
        self._ended: asyncio.Future[None] | None = None
        self._pumping: asyncio.Handle | None = None

    @property
    def depth(self) -> int:
        """Keys that wait for a worker now."""
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits, but for timers."""
        return not self._ready and not self._running

    @property
    def next_due(self) -> float | None:
        """The earliest timer, in steady seconds."""
        return min(self._due.values(), default=None)

    def add(self, key: str) -> None:
        self._ready.setdefault(key, self._steady())
        self._pump()

    def add_at(self, key: str, at: float) -> None:
        """Adds the key at this unix time, or earlier when it was to come earlier anyway."""
        wait = at - self._clock.now()
        if wait <= 0:
            self.add(key)
        elif self._steady() + wait < self._due.get(key, float("inf")):
            self._set_due(key, wait)
            self._arm()

    async def run(self) -> None:
        """Until cancelled, or until a worker raises Deposed, which this raises. Workers in flight are cancelled."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._pump()
            self._arm()
            await self._ended
        finally:
            self._ended = None
            if self._pumping is not None:
                self._pumping.cancel()
                self._pumping = None
            tasks = [*self._running.values(), *([self._timer] if self._timer else [])]
            self._timer = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._running.clear()

    def _pump(self) -> None:
        """Starts one worker, and comes back for the next: planning takes the CPU, and between two keys everybody else
        (sessions, heartbeats, the leader's lease) gets a turn."""
        if self._ended is None or self._ended.done() or self._pumping or len(self._running) >= self._parallel:
            return
        key = next((k for k in self._ready if k not in self._running), None)
        if key is None:
            return
        since = self._ready.pop(key)
        self._running[key] = asyncio.create_task(self._work(key, since), name=f"{self._name} {key}")
        self._pumping = asyncio.get_running_loop().call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pumping = None
        self._pump()

    async def _work(self, key: str, since: float) -> None:
        start = self._steady()
        try:
            wake_at = await self._worker(key)
        except Deposed as error:
            if self._ended is not None and not self._ended.done():
                self._ended.set_exception(error)
        except Conflict as error:
            self._retry(key, CONFLICT, error)
        except Exception as error:
            self._retry(key, ERROR, error)
        else:
            self._failures.pop(key, None)
            # It has looked at everything: its word replaces all earlier timers.
            self._due.pop(key, None)
            if wake_at is not None:
                self._set_due(key, max(SOONEST, wake_at - self._clock.now()))
        finally:
            self._running.pop(key, None)
            if self._observe:
                self._observe(key, start - since, self._steady() - start)
        self._pump()
        self._arm()

    def _retry(self, key: str, backoff: Backoff, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = backoff.delay(failures, self._rng)
        if isinstance(error, Conflict):
            log.debug("changed meanwhile, looking again", queue=self._name, key=key, error=error)
        elif isinstance(error, PyswarmError):
            log.warning("failed, trying again", queue=self._name, key=key, error=error, after=delay)
        else:
            log.exception("failed unexpectedly, trying again", queue=self._name, key=key, after=delay)
        self._set_due(key, delay)

    def _set_due(self, key: str, wait: float) -> None:
        at = self._due[key] = self._steady() + wait
        heapq.heappush(self._heap, (at, key))

    def _arm(self) -> None:
        """One timer task for all keys, for the earliest."""
        if self._ended is None or self._ended.done():
            return
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._timer is not None and not self._timer.done() and self._timer_at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.create_task(self._sleep_until(at), name=f"{self._name} timer")

    async def _sleep_until(self, at: float) -> None:
        while (left := at - self._steady()) > 0:  # sleep may end a little early
            await self._clock.sleep(left)
        self._timer = None
        now = self._steady()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._ready.setdefault(key, now)
        self._pump()
        self._arm()
