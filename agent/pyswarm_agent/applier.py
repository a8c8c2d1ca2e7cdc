"""Brings this host's kernel and DNS to what is wanted, newest state first, and says which revision they hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyswarm_agent.network.inputs import DrainFigures, NetworkInputs
from pyswarm_core.log import get_logger

log = get_logger("agent.applier")

FIRST_RETRY, LAST_RETRY = 0.1, 5.0  # seconds after an apply that failed


class Kernel(Protocol):
    """Of `network.inputs.Network`."""

    async def apply(self, inputs: NetworkInputs) -> None: ...
    async def drain_figures(self, task_id: str) -> DrainFigures: ...


class Names(Protocol):
    """DNS."""

    def update(self, inputs: NetworkInputs) -> None: ...


@dataclass(frozen=True, slots=True)
class Mark:
    """An endpoint update: of which session (a count), which of its messages, complete up to which revision."""

    session: int
    seq: int
    revision: int


class Applier:
    """`changed` and `wait_for_task` may be called from anywhere; `run` does the work. However many changes come while
    one is being applied, the next apply has them all."""

    def __init__(
        self,
        kernel: Kernel,
        names: Names,
        inputs: Callable[[], NetworkInputs],
        applied: Callable[[Mark], None],
        redirected: Callable[[str, float], None],
        clock: Callable[[], float],
    ) -> None:
        """`applied`: the newest update that is in the kernel now. `redirected`: (task, unix time) once per own task
        whose redirect is in the kernel."""
        self._kernel = kernel
        self._names = names
        self._inputs = inputs
        self._applied = applied
        self._redirected = redirected
        self._clock = clock
        self._wanted = 0
        self._done = 0
        self._mark: Mark | None = None
        self._told: Mark | None = None
        self._mark_at = 0.0
        self._tasks: frozenset[str] = frozenset()  # with which the last apply was made
        self._redirects: set[str] = set()
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self.last_seconds = 0.0  # from an update's arrival until the kernel had it
        self.failures = 0

    def changed(self, mark: Mark | None = None) -> None:
        """What `inputs` returns is different now; with an endpoint update, `mark` names it."""
        self._wanted += 1
        if mark is not None:
            self._mark = mark
            self._mark_at = self._mark_at or self._clock()
        self._wake.set()

    def lag(self) -> float:
        """Seconds since the oldest endpoint update came that the kernel has not; 0 when it has all."""
        return self._clock() - self._mark_at if self._mark_at else 0.0

    async def wait_for_task(self, task_id: str) -> None:
        """Returns when an apply that knew the task has succeeded."""
        async with self._progress:
            await self._progress.wait_for(lambda: task_id in self._tasks)

    async def run(self) -> None:
        """Until cancelled."""
        delay = FIRST_RETRY
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._done == self._wanted:
                continue
            if await self._apply_once():
                delay = FIRST_RETRY
                continue
            # Sooner when something changes: that may be what was missing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._wake.set()
            delay = min(2 * delay, LAST_RETRY)

    async def _apply_once(self) -> bool:
        wanted, mark, mark_at = self._wanted, self._mark, self._mark_at
        inputs = self._inputs()
        if not inputs.node_number or all(node.node_id != inputs.node_id for node in inputs.nodes):
            self._done = wanted  # no manager has admitted this host yet, and told its place among the others
            return True
        try:
            await self._kernel.apply(inputs)
            self._names.update(inputs)
        except Exception as error:
            self.failures += 1
            log.error("this host's network cannot be brought up to date yet", error=error)
            return False
        self._done = wanted
        async with self._progress:
            self._tasks = frozenset(inputs.tasks)
            self._progress.notify_all()
        if mark is not None and mark != self._told:
            self._told = mark
            self.last_seconds = self._clock() - mark_at
            if self._mark is mark:
                self._mark_at = 0.0
            self._applied(mark)
        await self._look_for_redirects(inputs)
        return True

    async def _look_for_redirects(self, inputs: NetworkInputs) -> None:
        leaving = {task_id for task_id, task in inputs.tasks.items() if task.leaving}
        self._redirects &= leaving
        for task_id in leaving - self._redirects:
            try:
                figures = await self._kernel.drain_figures(task_id)
            except Exception as error:
                log.warning("a redirect cannot be looked at", task=task_id, error=error)
                continue
            if figures.redirected_at:
                self._redirects.add(task_id)
                self._redirected(task_id, figures.redirected_at)
