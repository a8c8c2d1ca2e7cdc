"""An asyncio event loop whose time is a number: nothing waits, everything happens in an order that a seed decides.

When nothing is ready the clock jumps to the next timer. Real I/O, threads and child processes are refused: what needs
them has no place in a simulation.

Everything that runs belongs to a `Party` (a process of the simulated cluster) or to nobody (the world around them). A
party can be frozen, as by SIGSTOP: what it would do waits; or deaf to its timers, as one that has no time for them. It
can be killed: its work is cancelled, and whatever its clean-up still asks of the world is refused, since each of its
connections to the world looks at `alive`. The loop's time is, for a party, that of its host's clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


RESOLUTION = 1e-9  # seconds, of hosts' clocks: no timer rings before its time
MOST_ROUNDS = 5_000  # of the loop, without that time passes


@dataclass(frozen=True, slots=True)
class SteadyClock:
    """One boot of one host: its CLOCK_BOOTTIME, which runs at a speed of its own. In seconds."""

    since: float  # world time at which it said `start`
    start: float = 0.0
    rate: float = 1.0  # of its seconds in one of the world's

    def read(self, world: float) -> float:
        return self.start + (world - self.since) * self.rate

    def when(self, own: float) -> float:
        """The world's time at which this one is certain to have come: timers do not ring too early."""
        return self.since + (own - self.start) / self.rate + RESOLUTION


class Deadlock(Exception):
    """Everything waits, and no timer is set."""


class Party:
    """One life of one process. `name` is for stories. `clock`: its host's, which the loop's time is for it."""

    def __init__(self, name: str, clock: SteadyClock | None = None) -> None:
        self.name = name
        self.clock = clock
        self.alive = True
        self.frozen = False
        self.deaf = False  # no timer of its rings
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.context: Context = copy_context()
        self.context.run(PARTY.set, self)
        self._held: list[asyncio.Handle] = []
        self._look_at = 64  # tasks, when those that are done are dropped

    def note(self, task: asyncio.Task[Any]) -> None:
        """It belongs to this party. (A callback at each one's end would cost more than this.)"""
        self.tasks[task] = None
        if len(self.tasks) > self._look_at:
            self.tasks = {one: None for one in self.tasks if not one.done()}
            self._look_at = 2 * len(self.tasks) + 64

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.context.run(asyncio.get_running_loop().create_task, work)

    def check(self) -> None:
        """Called by whatever connects it to the world: a process that is dead asks for nothing."""
        if not self.alive:
            raise asyncio.CancelledError(f"{self.name} is dead")

    def freeze(self) -> None:
        self.frozen = self.alive
        if self.frozen:
            _loop().frozen += 1

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            self._release()

    def turn_deaf(self) -> None:
        if self.alive and not self.deaf:
            self.deaf = True
            _loop().frozen += 1

    def hear(self) -> None:
        if self.deaf:
            self.deaf = False
            self._release()

    def _release(self) -> None:
        """What still may not be done comes back."""
        loop = _loop()
        loop.frozen -= 1
        held, self._held = self._held, []
        loop.ready.extend(held)

    def kill(self) -> None:
        """At once, whatever it was doing."""
        if not self.alive:
            return
        self.thaw()
        self.hear()
        self.alive = False
        _loop().drop_timers(self)
        for task in list(self.tasks):
            task.cancel()

    def hold(self, handle: asyncio.Handle) -> None:
        self._held.append(handle)


PARTY: ContextVar[Party | None] = ContextVar("party", default=None)
NOBODY = Context()  # what the world itself does, whoever caused it


def world_time() -> float:
    """Simulated seconds, whoever asks."""
    return _loop().now


def later(delay: float, call: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
    """By the world: it happens though whoever asked for it dies."""
    return asyncio.get_running_loop().call_later(delay, call, *args, context=NOBODY)


class _NoFiles(selectors.BaseSelector):
    """Stands where the loop's selector stands."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # the loop's own wake-up pipe comes here once; it is never written to, as there are no threads
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, descriptor, events, data)
        self._keys[descriptor] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._keys.pop(descriptor)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when nothing else can happen at the present moment."""

    _ready: deque[asyncio.Handle]
    _timer_cancelled_count: int

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        # In place of asyncio's list of handles, which compares them in Python: (when, number, handle).
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self.frozen = 0  # parties, and those that are deaf
        self._rounds = 0
        self.on_spin: Callable[[], None] = lambda: None  # when much happens and no time passes
        super().__init__(_NoFiles())
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Of the host on which whoever asks runs; the world asks `world_time`."""
        party = PARTY.get()
        return self.now if party is None or party.clock is None else party.clock.read(self.now)

    @property
    def ready(self) -> deque[asyncio.Handle]:
        return self._ready

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} wants a thread; in a simulation there are none")

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        """Timers of one moment ring in the order in which they were set."""
        party = PARTY.get() if context is None else context.get(PARTY)
        if party is not None and party.clock is not None:
            when = party.clock.when(when)
        return self._set(when, callback, args, context)

    def _set(self, when: float, callback: Any, args: Any, context: Context | None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        party = PARTY.get() if context is None else context.get(PARTY)
        if party is not None and party.clock is not None:
            delay = delay / party.clock.rate + RESOLUTION
        return self._set(self.now + delay, callback, args, context)

    def drop_timers(self, party: Party) -> None:
        for _, _, handle in self._timers:
            if not handle.cancelled() and handle._context.get(PARTY) is party:  # type: ignore[attr-defined]
                handle.cancel()

    def _run_once(self) -> None:
        """In place of asyncio's own: the same, but for the clock and for parties that are frozen."""
        ready, timers = self._ready, self._timers
        if self._timer_cancelled_count > 100 and self._timer_cancelled_count * 2 > len(timers):
            kept = [timer for timer in timers if not timer[2]._cancelled]  # type: ignore[attr-defined]
            for _, _, handle in timers:
                if handle._cancelled:  # type: ignore[attr-defined]
                    handle._scheduled = False  # type: ignore[attr-defined]
            heapq.heapify(kept)
            timers[:] = kept
            self._timer_cancelled_count = 0
        while timers and timers[0][2]._cancelled:  # type: ignore[attr-defined]
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)[2]._scheduled = False  # type: ignore[attr-defined]
        if not ready:
            if not timers:
                raise Deadlock("everything waits and no timer is set")
            if timers[0][0] > self.now + 1e-5:
                self._rounds = 0
            self.now = max(self.now, timers[0][0])
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            self._rounds = 0
            self.on_spin()
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:  # type: ignore[attr-defined]
                continue
            if self.frozen:
                party = handle._context.get(PARTY)  # type: ignore[attr-defined]
                if party is not None and (party.frozen or (party.deaf and isinstance(handle, asyncio.TimerHandle))):
                    party.hold(handle)
                    continue
            self.steps += 1
            try:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"{handle} has failed", "exception": error, "handle": handle})


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    context = options.get("context")
    party = PARTY.get() if context is None else context.get(PARTY)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    if party is not None:
        party.note(task)
        if not party.alive:
            task.cancel()
    return task


def _loop() -> VirtualLoop:
    return cast("VirtualLoop", asyncio.get_running_loop())


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end under virtual time; whatever it left running is cancelled."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        return loop.run_until_complete(main)
    finally:
        for _ in range(3):
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=60))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
