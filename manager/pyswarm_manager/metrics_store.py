"""A Store that is watched: how long each call to etcd took, and what it raised."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from pyswarm_core.store.base import Compare, Entry, Listing, Op, Store, TxnResult, WatchBatch

T = TypeVar("T")
CALLS = ("get", "list", "txn", "grant", "keep_alive", "revoke", "compact")


class MeteredStore:
    """`observe(call, seconds, error)` is told of each call of CALLS. Watches are not timed: they never end."""

    def __init__(self, store: Store, observe: Callable[[str, float, BaseException | None], None]) -> None:
        self._store = store
        self._observe = observe

    async def get(self, key: str) -> Entry | None:
        return await self._timed("get", self._store.get(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        return await self._timed("list", self._store.list(prefix, revision=revision))

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        return await self._timed("txn", self._store.txn(compares, ops))

    def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        return self._store.watch(prefix, from_revision=from_revision, on_connected=on_connected)

    async def grant(self, ttl: int) -> int:
        return await self._timed("grant", self._store.grant(ttl))

    async def keep_alive(self, lease: int) -> float:
        return await self._timed("keep_alive", self._store.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._timed("revoke", self._store.revoke(lease))

    async def compact(self, revision: int) -> None:
        await self._timed("compact", self._store.compact(revision))

    async def close(self) -> None:
        await self._store.close()

    async def _timed(self, call: str, awaitable: Awaitable[T]) -> T:
        start = time.monotonic()
        error: BaseException | None = None
        try:
            return await awaitable
        except Exception as raised:
            error = raised
            raise
        finally:
            self._observe(call, time.monotonic() - start, error)
