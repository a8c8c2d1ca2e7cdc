"""A copy, in memory, of everything stored: listed once, then followed for ever by one watch.

Reads cost nothing and never fail; they may be behind the store. Who has just written waits with `wait_for` until the
copy holds its own write. Whoever keeps indexes does so in a `Listener`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol, TypeVar, cast

from google.protobuf.message import DecodeError

from pyswarm_core import kinds
from pyswarm_core.errors import Compacted, PyswarmError
from pyswarm_core.kinds import Stored
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Entry, EventKind, Listing, Store, WatchBatch
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("store.cache")

T = TypeVar("T", bound=Stored)

_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0  # seconds


class Listener(Protocol):
    """Called synchronously, with no await between the changes of one revision. Must not block and must not raise.
    Messages belong to the cache: never change one."""

    def on_change(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        """One object was created (old None), replaced, or deleted (new None)."""
        ...

    def on_revision(self, revision: int) -> None:
        """Everything up to and including `revision` has been told; the cache is consistent now."""
        ...


class WatchCache:
    """`run` in a task fills and follows; the rest may be called at any time, from the same event loop."""

    def __init__(
        self,
        store: Store,
        listener: Listener | None = None,
        *,
        prefix: str = kinds.PREFIX,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._listener = listener
        self._prefix = prefix
        self._sleep = sleep
        self._objects: dict[str, dict[str, Stored]] = {kind: {} for kind in kinds.MESSAGES}
        self._leader: tuple[pb.Leader, int] | None = None
        self._revision = 0
        self._connected = False
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()

    @property
    def revision(self) -> int:
        """The store revision up to which this copy is complete; 0 before the first list."""
        return self._revision

    @property
    def connected(self) -> bool:
        """False while the store cannot be reached: what is served may be old, and grows older."""
        return self._connected

    @property
    def leader(self) -> pb.Leader | None:
        """Who leads, as far as this copy knows."""
        return self._leader[0] if self._leader else None

    @property
    def leader_revision(self) -> int:
        """The create_revision of the leader's key; 0 without a leader."""
        return self._leader[1] if self._leader else 0

    def objects(self, message: type[T]) -> Mapping[str, T]:
        """A live view: `cache.objects(pb.Task)[task_id]`. It changes with the store; copy it to keep it."""
        return cast("Mapping[str, T]", self._objects[kinds.KIND_OF[cast("type[Stored]", message)]])

    async def wait_for(self, revision: int) -> None:
        """Returns when the copy holds everything up to `revision`, the revision of a write under the prefix.
        `wait_for(1)` waits for the first list. Waits for ever when the store is away: put a timeout around it."""
        if self._revision >= revision:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._tickets), future))
        await future

    async def run(self) -> None:
        """Until cancelled. Errors of the store are logged and retried; only programming errors end it."""
        listed = False
        delay = _FIRST_RETRY
        while True:
            try:
                if not listed:
                    self.load(await self._store.list(self._prefix))
                    self._set_connected(True)
                    listed = True
                watch = self._store.watch(
                    self._prefix, from_revision=self._revision + 1, on_connected=self._set_connected
                )
                async with aclosing(watch):
                    async for batch in watch:
                        delay = _FIRST_RETRY
                        self.apply(batch)
            except Compacted as error:
                log.info("history is gone, listing again", have=self._revision, oldest=error.compact_revision)
                listed = False
            except PyswarmError as error:
                self._set_connected(False)
                log.warning("store lost, trying again", error=error, after=delay)
            # Also after Compacted: a store that compacts faster than we can list must not make this a busy loop.
            await self._sleep(delay)
            delay = min(delay * 2, _LAST_RETRY)

    def load(self, listing: Listing) -> None:
        """Makes the copy equal to the listing, telling the listener the differences. `run` calls it; so may a
        simulator that drives the cache by hand."""
        seen = {entry.key for entry in listing.entries}
        leader = kinds.LEADER_KEY
        if leader not in seen:
            self._leader = None
        # Deletions first, so that an index by address or port never sees two holders.
        for kind, objects in self._objects.items():
            for object_id in [i for i in objects if kinds.key(kind, i) not in seen]:
                self._remove(kinds.key(kind, object_id))
        for entry in listing.entries:
            self._put(entry)
        self._arrive(listing.revision)

    def apply(self, batch: WatchBatch) -> None:
        """Applies one batch of a watch; see `load`."""
        for event in batch.events:
            if event.kind is EventKind.PUT:
                self._put(event.entry)
            else:
                self._remove(event.entry.key)
        self._arrive(batch.revision)

    def _put(self, entry: Entry) -> None:
        if entry.key == kinds.LEADER_KEY:
            try:
                self._leader = (pb.Leader.FromString(entry.value), entry.create_revision)
            except DecodeError:
                log.error("the leader's key cannot be decoded, ignored", revision=entry.mod_revision)
            return
        kind, object_id = self._split(entry.key)
        objects = self._objects.get(kind)
        if objects is None:
            return  # not one of ours, or of a newer version
        old = objects.get(object_id)
        if old is not None and old.version == entry.mod_revision:
            return
        try:
            new = kinds.decode(kind, entry.value, entry.mod_revision)
        except DecodeError:
            log.error("a stored value cannot be decoded, ignored", key=entry.key, revision=entry.mod_revision)
            return
        objects[object_id] = new
        if self._listener:
            self._listener.on_change(kind, object_id, old, new)

    def _remove(self, key: str) -> None:
        if key == kinds.LEADER_KEY:
            self._leader = None
            return
        kind, object_id = self._split(key)
        old = self._objects.get(kind, {}).pop(object_id, None)
        if old is not None and self._listener:
            self._listener.on_change(kind, object_id, old, None)

    def _split(self, key: str) -> tuple[str, str]:
        kind, _, object_id = key.removeprefix(kinds.PREFIX).partition("/")
        return kind, object_id

    def _arrive(self, revision: int) -> None:
        self._revision = revision
        if self._listener:
            self._listener.on_revision(revision)
        for future in self._due():
            if not future.done():  # its waiter may have been cancelled
                future.set_result(None)

    def _due(self) -> Iterable[asyncio.Future[None]]:
        while self._waiters and self._waiters[0][0] <= self._revision:
            yield heapq.heappop(self._waiters)[2]

    def _set_connected(self, connected: bool) -> None:
        if connected != self._connected:
            log.info("store connected" if connected else "store disconnected", revision=self._revision)
        self._connected = connected
