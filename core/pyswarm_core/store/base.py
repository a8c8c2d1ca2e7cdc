"""The store's interface: a revisioned key-value store with etcd's semantics.

Two implementations: `pyswarm_core.etcd.store.EtcdStore`, `pyswarm_core.store.memory.MemoryStore`; one conformance suite
(`tests/unit/core/test_store_conformance.py`) runs against both.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

# etcd's default --max-txn-ops: at most this many operations in each list of a transaction.
MAX_TXN_OPS = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it was at a revision. `version` counts the key's writes since it was created."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int = 1
    lease: int = 0


class Field(Enum):
    """What of a key a Compare looks at. A key that does not exist has 0 in all three."""

    MOD = "mod"
    CREATE = "create"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Compare:
    """Equality: the transaction applies only if the key's field equals `value`."""

    key: str
    field: Field
    value: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


Op = Put | Delete


@dataclass(frozen=True, slots=True)
class TxnResult:
    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys under a prefix, in key order, as of `revision`."""

    entries: tuple[Entry, ...]
    revision: int


class EventKind(Enum):
    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """For DELETE, `entry` has an empty value and the mod_revision of the deletion."""

    kind: EventKind
    entry: Entry


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Whole revisions only: a transaction's events never straddle two batches. No events = a progress notification.

    Everything up to and including `revision` has been delivered: resume from revision + 1.
    """

    revision: int
    events: tuple[Event, ...]


def check_txn(compares: Sequence[Compare], ops: Sequence[Op]) -> None:
    """Raises ValueError for a transaction that etcd would refuse."""
    if len(compares) > MAX_TXN_OPS or len(ops) > MAX_TXN_OPS:
        raise ValueError(
            f"a transaction of {len(compares)} compares and {len(ops)} operations: at most {MAX_TXN_OPS} each"
        )
    keys = [op.key for op in ops]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"a transaction that writes the key {twice!r} twice")


def check_ttl(ttl: int) -> None:
    if ttl < 1:
        raise ValueError(f"a lease of {ttl} seconds: at least 1")


class Store(Protocol):
    """Errors: `errors.StoreUnavailable` (retryable, nothing happened), `errors.OutcomeUnknown` (a write that may or may
    not have happened: read again), `errors.Compacted` (from watch: relist)."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """`revision` 0 = now. Pages by itself, all pages at one revision."""
        ...

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        """All of `ops` if all of `compares` hold, else nothing. ValueError: more than MAX_TXN_OPS, or a key twice."""
        ...

    def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        """Batches from `from_revision` (≥ 1) on, for ever, across reconnections, each event once and in order.

        Ends only by an error (`Compacted`, or a final one) or by the consumer's aclose(): leave it through
        `contextlib.aclosing`. `on_connected` is told when the stream is lost and when it is there (again).
        """
        ...

    async def grant(self, ttl: int) -> int:
        """A new lease of `ttl` seconds; returns its id."""
        ...

    async def keep_alive(self, lease: int) -> float:
        """Renews once; returns the seconds left, 0 when the lease is gone."""
        ...

    async def revoke(self, lease: int) -> None: ...

    async def compact(self, revision: int) -> None: ...

    async def close(self) -> None: ...
