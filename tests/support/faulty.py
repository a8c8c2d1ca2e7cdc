"""A store in between that loses answers, or fails, where a test wants it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pyswarm_core.errors import OutcomeUnknown, StoreUnavailable
from pyswarm_core.store.base import Compare, Entry, Listing, Op, Store, TxnResult, WatchBatch

# What happens to one call of txn: None = nothing special.
Fault = str | None
LOST_BEFORE, LOST_AFTER, DOWN = "lost before", "lost after", "down"
LATE = "late"  # the answer is lost, and the write arrives only after somebody has looked for it by `get`


@dataclass
class FaultyStore:
    """`faults` are used up by calls of `txn`, first come first served. `after_txn` runs after each one that happened,
    before its answer is lost."""

    inner: Store
    faults: list[Fault] = field(default_factory=list)
    reads_down: bool = False
    after_txn: Callable[[], Awaitable[None]] | None = None
    txns: int = 0
    _late: tuple[Sequence[Compare], Sequence[Op]] | None = None

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        fault = self.faults.pop(0) if self.faults else None
        if fault == DOWN:
            raise StoreUnavailable("down, says the test")
        if fault == LOST_BEFORE:
            raise OutcomeUnknown("request lost, says the test")
        if fault == LATE:
            self._late = (compares, ops)
            raise OutcomeUnknown("request on its way, says the test")
        self.txns += 1
        result = await self.inner.txn(compares, ops)
        if self.after_txn:
            await self.after_txn()
        if fault == LOST_AFTER:
            raise OutcomeUnknown("answer lost, says the test")
        return result

    def _read(self) -> None:
        if self.reads_down:
            raise StoreUnavailable("reads are down, says the test")

    async def get(self, key: str) -> Entry | None:
        self._read()
        entry = await self.inner.get(key)
        if self._late:
            late, self._late = self._late, None
            await self.inner.txn(*late)
        return entry

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        self._read()
        return await self.inner.list(prefix, revision=revision)

    def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        return self.inner.watch(prefix, from_revision=from_revision, on_connected=on_connected)

    async def grant(self, ttl: int) -> int:
        return await self.inner.grant(ttl)

    async def keep_alive(self, lease: int) -> float:
        return await self.inner.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self.inner.revoke(lease)

    async def compact(self, revision: int) -> None:
        await self.inner.compact(revision)

    async def close(self) -> None:
        await self.inner.close()
