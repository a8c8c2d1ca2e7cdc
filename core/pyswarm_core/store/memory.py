"""The store in memory, with etcd's behaviour: for tests, and for the simulator under virtual time.

Nothing here waits for real time. Leases run out by the given clock, when `expire` is called (each operation calls it
first). Every method that does not wait by nature has a synchronous twin, so a simulator needs no event loop.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from pyswarm_core.errors import Compacted, InvalidInput, NotFound, PreconditionFailed, StoreUnavailable
from pyswarm_core.store.base import (
    Compare,
    Delete,
    Entry,
    Event,
    EventKind,
    Field,
    Listing,
    Op,
    Put,
    TxnResult,
    WatchBatch,
    check_ttl,
    check_txn,
)


@dataclass(slots=True)
class _Lease:
    ttl: int
    expires_at: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Watcher:
    prefix: str
    queue: deque[WatchBatch] = field(default_factory=deque)
    wake: asyncio.Future[None] | None = None

    def rouse(self) -> None:
        if self.wake and not self.wake.done():
            self.wake.set_result(None)


class MemoryStore:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, from any origin."""
        self._clock = clock
        self._ahead = 0.0
        self._revision = 1  # as etcd's, which is 1 before anything is written
        self._compacted = 0
        self._entries: dict[str, Entry] = {}
        self._log: list[tuple[int, tuple[Event, ...]]] = []  # of revisions after the compacted one
        self._history: dict[str, list[Event]] = {}  # per key, oldest first
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1
        self._watchers: dict[_Watcher, None] = {}  # a dict for its order: the same history wakes them in the same order
        self._available = True
        self._closed = False

    # What only a simulator or a test calls.

    @property
    def revision(self) -> int:
        return self._revision

    def now(self) -> float:
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        """Puts the store's time ahead of the clock by so much more, and expires what is due."""
        self._ahead += seconds
        self.expire()

    def leases(self) -> frozenset[int]:
        return frozenset(self._leases)

    def next_expiry(self) -> float | None:
        """The time (of `now`) at which `expire` is to be called next; None without leases."""
        return min((lease.expires_at for lease in self._leases.values()), default=None)

    def expire(self) -> None:
        """Ends the leases that are due, deleting their keys: one revision each, as in etcd."""
        if not self._leases:
            return
        now = self.now()
        for lease_id in [i for i, lease in self._leases.items() if lease.expires_at <= now]:
            self._end_lease(lease_id)

    def restart_leases(self) -> None:
        """Each has its whole time again, as in etcd when its own leader changes."""
        for lease in self._leases.values():
            lease.expires_at = self.now() + lease.ttl

    def set_available(self, available: bool) -> None:
        """An outage: calls raise StoreUnavailable and watches stand still. Leases run on."""
        self._available = available
        for watcher in self._watchers:
            watcher.rouse()

    def list_now(self, prefix: str, revision: int = 0) -> Listing:
        self._begin()
        if revision > self._revision:
            raise InvalidInput(f"revision {revision} is still to come: the newest is {self._revision}")
        if 0 < revision < self._compacted:
            raise Compacted(self._compacted)
        if revision in (0, self._revision):
            found = [entry for key, entry in self._entries.items() if key.startswith(prefix)]
        else:
            found = [e for key in self._history if key.startswith(prefix) and (e := self._at(key, revision))]
        return Listing(tuple(sorted(found, key=lambda e: e.key)), revision or self._revision)

    def get_now(self, key: str) -> Entry | None:
        self._begin()
        return self._entries.get(key)

    def txn_now(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        check_txn(compares, ops)
        self._begin()
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self._revision)
        for op in ops:
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise NotFound(f"the lease {op.lease} does not exist (any more)")
        self._write(ops)
        return TxnResult(True, self._revision)

    def events_since(self, prefix: str, from_revision: int) -> list[WatchBatch]:
        """What a watch would deliver until now, one batch a revision; raises Compacted."""
        if from_revision <= self._compacted and self._compacted > 1:  # nothing was ever written at revision 1
            raise Compacted(self._compacted)
        start = bisect_right(self._log, from_revision - 1, key=lambda item: item[0])
        batches = ((revision, _under(prefix, events)) for revision, events in self._log[start:])
        return [WatchBatch(revision, events) for revision, events in batches if events]

    # The interface.

    async def get(self, key: str) -> Entry | None:
        return self.get_now(key)

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        return self.list_now(prefix, revision)

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        return self.txn_now(compares, ops)

    async def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        # From here on it is told everything, as an etcd watcher that has caught up is: compaction cannot hurt it.
        watcher = _Watcher(prefix, deque(self.events_since(prefix, from_revision)))
        connected: bool | None = None
        self._watchers[watcher] = None
        try:
            while True:
                self._refuse_when_closed()
                if on_connected and connected != self._available:
                    connected = self._available
                    on_connected(connected)
                if self._available and watcher.queue:
                    batch = watcher.queue.popleft()
                    if batch.revision >= from_revision:
                        yield batch
                    continue
                watcher.wake = asyncio.get_running_loop().create_future()
                await watcher.wake
        finally:
            self._watchers.pop(watcher, None)

    async def grant(self, ttl: int) -> int:
        self._begin()
        check_ttl(ttl)
        lease_id, self._next_lease = self._next_lease, self._next_lease + 1
        self._leases[lease_id] = _Lease(ttl, self.now() + ttl)
        return lease_id

    async def keep_alive(self, lease: int) -> float:
        self._begin()
        found = self._leases.get(lease)
        if found is None:
            return 0.0
        found.expires_at = self.now() + found.ttl
        return float(found.ttl)

    async def revoke(self, lease: int) -> None:
        self._begin()
        if lease in self._leases:
            self._end_lease(lease)

    async def compact(self, revision: int) -> None:
        self._begin()
        if revision > self._revision:
            raise InvalidInput(f"revision {revision} is still to come: the newest is {self._revision}")
        if revision <= self._compacted:
            return
        self._compacted = revision
        del self._log[: bisect_right(self._log, revision, key=lambda item: item[0])]
        for key, events in list(self._history.items()):
            newest = bisect_right(events, revision, key=lambda e: e.entry.mod_revision) - 1
            keep_newest = newest >= 0 and events[newest].kind is EventKind.PUT
            del events[: newest if keep_newest else newest + 1]
            if not events:
                del self._history[key]

    async def close(self) -> None:
        self._closed = True
        for watcher in self._watchers:
            watcher.rouse()

    # Inside.

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise PreconditionFailed("the store was closed by this process")

    def _begin(self) -> None:
        self._refuse_when_closed()
        if not self._available:
            raise StoreUnavailable("the store cannot be reached")
        self.expire()

    def _at(self, key: str, revision: int) -> Entry | None:
        events = self._history[key]
        index = bisect_right(events, revision, key=lambda e: e.entry.mod_revision) - 1
        return events[index].entry if index >= 0 and events[index].kind is EventKind.PUT else None

    def _holds(self, compare: Compare) -> bool:
        entry = self._entries.get(compare.key)
        if entry is None:
            return compare.value == 0
        match compare.field:
            case Field.MOD:
                return entry.mod_revision == compare.value
            case Field.CREATE:
                return entry.create_revision == compare.value
            case Field.VERSION:
                return entry.version == compare.value

    def _write(self, ops: Sequence[Op]) -> None:
        """One revision for all; none if nothing changes (deletions of what is not there)."""
        revision = self._revision + 1
        events: list[Event] = []
        for op in ops:
            old = self._entries.get(op.key)
            if old and old.lease in self._leases:
                self._leases[old.lease].keys.discard(op.key)
            if isinstance(op, Delete):
                if old is None:
                    continue
                del self._entries[op.key]
                events.append(Event(EventKind.DELETE, Entry(op.key, b"", 0, revision, 0)))
            else:
                created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
                entry = Entry(op.key, op.value, created, revision, version, op.lease)
                self._entries[op.key] = entry
                if op.lease:
                    self._leases[op.lease].keys.add(op.key)
                events.append(Event(EventKind.PUT, entry))
        if not events:
            return
        self._revision = revision
        self._log.append((revision, tuple(events)))
        for event in events:
            self._history.setdefault(event.entry.key, []).append(event)
        for watcher in self._watchers:
            if told := _under(watcher.prefix, events):
                watcher.queue.append(WatchBatch(revision, told))
                watcher.rouse()

    def _end_lease(self, lease_id: int) -> None:
        lease = self._leases.pop(lease_id)
        self._write([Delete(key) for key in sorted(lease.keys)])


def _under(prefix: str, events: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(event for event in events if event.entry.key.startswith(prefix))
