"""An asyncio event loop whose time is a number: nothing waits, everything happens in an order that a seed decides.

When nothing is ready the clock jumps to the next timer. Real I/O, threads and child processes are refused: what needs
them has no place in a simulation.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Everything waits, and no timer is set."""


class _NoFiles(selectors.BaseSelector):
    """Stands where the loop's selector stands: waiting for files is letting time pass."""

    def __init__(self) -> None:
        self.now = 0.0
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
        if timeout is None:
            raise Deadlock("everything waits and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when nothing else can happen at the present moment."""

    def __init__(self) -> None:
        self._files = _NoFiles()
        super().__init__(self._files)
        # below this, two timers would be one; the default depends on the machine's clock
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._files.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} wants a thread; in a simulation there are none")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end under virtual time; whatever it left running is cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
