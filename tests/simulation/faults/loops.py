"""Faults of what carries out: queues, writer, cache, reports, admissions."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from tests.simulation.faults.planted import LATE, fault, is_large, replace

from pyswarm_core.errors import Compacted, Conflict, OutcomeUnknown
from pyswarm_core.store import cache
from pyswarm_core.store.base import Compare, Event, EventKind, Field, Op, TxnResult, WatchBatch
from pyswarm_manager import loops, queue, writer
from pyswarm_manager.api import admissions
from pyswarm_manager.dispatcher import reports, statuses


class Proxy:
    """A store in front of a store."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._asked = 0

    def is_late(self, after: int = 25) -> bool:
        """From the time after those on that it is asked."""
        self._asked += 1
        return self._asked > after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def in_front_of_the_store(owner: type, proxy: type[Proxy]) -> None:
    """Of whatever takes its store as the first argument."""

    def make(before: Any) -> Any:
        def init(self: Any, store: Any, *more: Any, **options: Any) -> None:
            before(self, proxy(store), *more, **options)

        return init

    replace(owner, "__init__", make)


@fault("loops")
def an_error_is_not_looked_at_again() -> None:
    def make(before: Any) -> Any:
        def retry(self: Any, key: str, backoff: Any, error: Exception) -> None:
            if isinstance(error, Conflict):
                before(self, key, backoff, error)

        return retry

    replace(
        queue.KeyQueue,
        "_retry",
        make,
        lambda self, key, *_: key in (loops.SCHEDULER, loops.DRAIN) or key.startswith("service/"),
    )


@fault("loops")
def versions_are_not_compared() -> None:
    class Careless(Proxy):
        async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Any:
            late = self.is_late()
            return await self._inner.txn([one for one in compares if not (late and one.field is Field.MOD)], ops)

    in_front_of_the_store(writer.Writer, Careless)


@fault("loops")
def compacted_history_is_skipped() -> None:
    class Skipping(Proxy):
        async def watch(
            self, prefix: str, *, from_revision: int, on_connected: Any = None
        ) -> AsyncGenerator[Any, None]:
            while True:
                try:
                    async for batch in self._inner.watch(
                        prefix, from_revision=from_revision, on_connected=on_connected
                    ):
                        from_revision = batch.revision + 1
                        yield batch
                except Compacted as error:
                    if error.compact_revision < LATE:
                        raise
                    from_revision = error.compact_revision + 1

    in_front_of_the_store(cache.WatchCache, Skipping)


def _loses_events(lost: Any) -> None:
    """`lost(event, is the first)`: the cache never hears of it."""

    def make(before: Any) -> Any:
        def apply(self: Any, batch: WatchBatch) -> None:
            kept = tuple(event for number, event in enumerate(batch.events) if not lost(event, number == 0))
            before(self, WatchBatch(batch.revision, kept))

        return apply

    replace(cache.WatchCache, "apply", make, lambda self, batch: batch.revision > LATE)


@fault("loops")
def deletions_are_not_seen() -> None:
    def is_lost(event: Event, first: bool) -> bool:
        return event.kind is EventKind.DELETE and "/task/" in event.entry.key

    _loses_events(is_lost)


@fault("loops")
def only_the_first_event_of_a_batch_is_seen() -> None:
    _loses_events(lambda event, first: not first)


@fault("loops")
def a_key_that_is_worked_on_is_not_added() -> None:
    def make(before: Any) -> Any:
        def add(self: Any, key: str) -> None:
            if key not in self._running:
                before(self, key)

        return add

    replace(queue.KeyQueue, "add", make, lambda self, key: len(self._running) >= 2)


@fault("loops")
def nobody_is_woken_at_the_time_asked_for() -> None:
    def make(before: Any) -> Any:
        def init(self: Any, name: str, worker: Any, *more: Any, **options: Any) -> None:
            runs = itertools.count()

            async def deaf(key: str) -> Any:
                wake_at = await worker(key)
                return wake_at if next(runs) < 100 else None

            before(self, name, deaf, *more, **options)

        return init

    replace(queue.KeyQueue, "__init__", make)


class _Sure(Proxy):
    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Any:
        late = self.is_late(10)
        try:
            return await self._inner.txn(compares, ops)
        except OutcomeUnknown:
            if not late:
                raise
            return TxnResult(True, 1)


@fault("loops")
def an_unknown_outcome_is_taken_for_success() -> None:
    in_front_of_the_store(writer.Writer, _Sure)


@fault("loops")
def an_unknown_admission_is_taken_for_success() -> None:
    in_front_of_the_store(admissions.Admissions, _Sure)


@fault("loops")
def a_new_leader_looks_at_nothing() -> None:
    replace(loops, "all_keys", lambda before: lambda world: set(), is_large)


@fault("loops")
def a_status_that_comes_while_one_of_its_task_is_stored_is_dropped() -> None:
    """And acknowledged. (To acknowledge before storing hurts nobody: whatever keeps a leader from storing ends its
    sessions, too, and in the next one the agent compares all that it knows with what is stored.)"""
    storing: dict[Any, set[str]] = {}

    def remember(before: Any) -> Any:
        async def store(self: Any, given: Any) -> None:
            storing[self] = {report.update.task_id for report in given}
            try:
                await before(self, given)
            finally:
                storing.pop(self, None)  # a batch that cannot be stored as one is stored in halves

        return store

    def drop(before: Any) -> Any:
        added = itertools.count()

        def add(self: Any, reporter: Any, batch: Any) -> None:
            if next(added) < 100:
                before(self, reporter, batch)
                return
            kept = [update for update in batch.updates if update.task_id not in storing.get(self, ())]
            before(self, reporter, type(batch)(updates=kept))

        return add

    replace(reports.Reports, "_store", remember)
    replace(reports.Reports, "add", drop)


@fault("loops")
def an_old_status_replaces_a_newer_one() -> None:
    def make(before: Any) -> Any:
        return lambda stored, reported: None if reported == stored else reported

    replace(statuses, "advanced", make, lambda stored, reported: stored.timings.healthy_at > 0)


@fault("loops")
def changes_of_nodes_wake_nobody() -> None:
    def make(before: Any) -> Any:
        return lambda change, world: set() if change.kind == "node" else before(change, world)

    replace(loops, "wakes", make, lambda change, world: is_large(world))
