"""Group commit of what agents report: whatever has come in while one write was under way goes into the next.

So a transaction carries as many tasks as the load brings, and an idle cluster's report is stored at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pyswarm_core.errors import Conflict, Deposed, PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_manager.clock import Clock
from pyswarm_manager.dispatcher.statuses import Report, writes
from pyswarm_manager.loops import Applier
from pyswarm_manager.plan import Plan, World
from pyswarm_manager.queue import CONFLICT, ERROR

log = get_logger("dispatcher.reports")


class Reporter(Protocol):
    """A session, as far as its reports go."""

    @property
    def node_id(self) -> str: ...

    def stored(self, batches: int, task_ids: Sequence[str]) -> None:
        """Its first `batches` batches are stored; `task_ids` are those that the last ones spoke of."""
        ...


class Reports:
    """Reports wait in memory, at most one update per session and task: a slow store costs no more than that."""

    def __init__(
        self,
        world: World,
        applier: Applier,
        catch_up: Callable[[int], Awaitable[None]],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._world = world
        self._applier = applier
        self._catch_up = catch_up
        self._clock = clock
        self._rng = rng
        self._waiting: dict[Reporter, dict[str, wire.StatusUpdate]] = {}
        self._batches: dict[Reporter, int] = {}
        self._some = asyncio.Event()

    def add(self, reporter: Reporter, batch: wire.StatusBatch) -> None:
        """`reporter.stored` is called when it is stored."""
        self._batches[reporter] = self._batches.get(reporter, 0) + 1
        waiting = self._waiting.setdefault(reporter, {})
        for update in batch.updates:
            earlier = waiting.get(update.task_id)
            if earlier is not None and earlier.HasField("adopted") and not update.HasField("adopted"):
                update.adopted.CopyFrom(earlier.adopted)
            waiting[update.task_id] = update
        self._some.set()

    def forget(self, reporter: Reporter) -> None:
        """The session has ended: its reports are stored all the same, but nobody is told."""
        self._batches.pop(reporter, None)

    async def run(self) -> None:
        """Until cancelled or Deposed."""
        while True:
            await self._some.wait()
            self._some.clear()
            waiting, self._waiting = self._waiting, {}
            counts = {reporter: self._batches.get(reporter, 0) for reporter in waiting}
            await self._store([Report(s.node_id, u) for s, updates in waiting.items() for u in updates.values()])
            for reporter, count in counts.items():
                if reporter in self._batches:
                    reporter.stored(count, list(waiting[reporter]))

    async def _store(self, reports: Sequence[Report]) -> None:
        failures = 0
        while True:
            try:
                groups = writes(self._world, reports)
                if not groups:
                    return
                await self._catch_up(await self._applier.apply(Plan(steps=tuple(groups))))
                return
            except Deposed:
                raise
            except Conflict:
                # A loop has changed one of these tasks: the world will show it within milliseconds.
                failures += 1
                await self._clock.sleep(CONFLICT.delay(failures, self._rng))
            except PyswarmError as error:
                failures += 1
                delay = ERROR.delay(failures, self._rng)
                log.warning("statuses are not stored yet", reports=len(reports), error=error, after=delay)
                await self._clock.sleep(delay)
            except Exception:
                # One report that cannot be stored must not take the others, and the leader, with it.
                if len(reports) == 1:
                    log.exception("a report is ignored", node=reports[0].node_id, task=reports[0].update.task_id)
                    return
                half = len(reports) // 2
                await self._store(reports[:half])
                await self._store(reports[half:])
                return
