"""The store on a real etcd. See `store.base` for what each method promises."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence

from pyswarm_core import tls
from pyswarm_core.errors import AlreadyExists, Compacted, NotFound
from pyswarm_core.etcd.client import TIMEOUT, Client
from pyswarm_core.etcd.faults import Effect, HistoryGone
from pyswarm_core.etcd.watch import RANGE, compact_revision, encode_key, entry, key_range, watch
from pyswarm_core.store.base import (
    Compare,
    Entry,
    Field,
    Listing,
    Op,
    Put,
    TxnResult,
    WatchBatch,
    check_ttl,
    check_txn,
)
from pyswarm_core.v1 import etcd_pb2 as pb

TXN = "/etcdserverpb.KV/Txn"
COMPACT = "/etcdserverpb.KV/Compact"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
REVOKE = "/etcdserverpb.Lease/LeaseRevoke"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"

PAGE = 1000  # keys; with values of the 1.5 MiB that etcd allows a page would be too large, but ours are some KiB
_LIST_ATTEMPTS = 5


class EtcdStore:
    def __init__(self, client: Client, *, page: int = PAGE) -> None:
        self.client = client
        self._page = page

    @classmethod
    def connect(
        cls, endpoints: Sequence[str], identity: tls.Identity | None, *, timeout: float = TIMEOUT, page: int = PAGE
    ) -> EtcdStore:
        """Must be called from the event loop. Does no I/O yet: etcd may come later. `timeout` (seconds) is for one
        call with all its attempts; `identity` None = no TLS, for tests. Raises InvalidInput for a malformed endpoint.
        """
        return cls(Client(endpoints, identity, timeout=timeout), page=page)

    async def get(self, key: str) -> Entry | None:
        request = pb.RangeRequest(key=encode_key(key))
        response = await self.client.unary(RANGE, request, pb.RangeResponse, Effect.READ)
        return entry(response.kvs[0]) if response.kvs else None

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        for _ in range(_LIST_ATTEMPTS):
            try:
                return await self._list(prefix, revision)
            except HistoryGone:
                if revision:
                    break
                # compacted between two pages, so the first page's revision is too old now: begin again
        raise Compacted(await compact_revision(self.client))

    async def _list(self, prefix: str, revision: int) -> Listing:
        key, range_end = key_range(prefix)
        entries: list[Entry] = []
        while True:
            request = pb.RangeRequest(key=key, range_end=range_end, limit=self._page, revision=revision)
            response = await self.client.unary(RANGE, request, pb.RangeResponse, Effect.READ)
            revision = revision or response.header.revision
            entries.extend(map(entry, response.kvs))
            if not response.more:
                return Listing(tuple(entries), revision)
            key = response.kvs[-1].key + b"\0"

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        check_txn(compares, ops)
        request = pb.TxnRequest(compare=map(_compare, compares), success=map(_operation, ops))
        response = await self.client.unary(TXN, request, pb.TxnResponse, Effect.WRITE if ops else Effect.READ)
        return TxnResult(response.succeeded, response.header.revision)

    def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        return watch(self.client, prefix, from_revision, on_connected or (lambda _: None))

    async def grant(self, ttl: int) -> int:
        check_ttl(ttl)
        # With an id of our own, asking again after a lost answer cannot leave a second lease behind.
        lease = secrets.randbits(62) + 1
        request = pb.LeaseGrantRequest(id=lease, ttl=ttl)
        try:
            await self.client.unary(GRANT, request, pb.LeaseGrantResponse, Effect.READ)
        except AlreadyExists:
            pass
        return lease

    async def keep_alive(self, lease: int) -> float:
        request = pb.LeaseKeepAliveRequest(id=lease)
        try:
            response = await self.client.exchange(KEEP_ALIVE, request, pb.LeaseKeepAliveResponse, Effect.READ)
        except NotFound:
            return 0.0
        return float(max(response.ttl, 0))

    async def revoke(self, lease: int) -> None:
        request = pb.LeaseRevokeRequest(id=lease)
        try:
            await self.client.unary(REVOKE, request, pb.LeaseRevokeResponse, Effect.REPEATABLE)
        except NotFound:
            pass

    async def compact(self, revision: int) -> None:
        request = pb.CompactionRequest(revision=revision)
        try:
            await self.client.unary(COMPACT, request, pb.CompactionResponse, Effect.REPEATABLE)
        except HistoryGone:
            pass  # somebody else was faster

    async def close(self) -> None:
        await self.client.close()


_TARGETS = {Field.MOD: pb.Compare.MOD, Field.CREATE: pb.Compare.CREATE, Field.VERSION: pb.Compare.VERSION}
_FIELDS = {Field.MOD: "mod_revision", Field.CREATE: "create_revision", Field.VERSION: "version"}


def _compare(compare: Compare) -> pb.Compare:
    message = pb.Compare(key=encode_key(compare.key), target=_TARGETS[compare.field])
    setattr(message, _FIELDS[compare.field], compare.value)
    return message


def _operation(op: Op) -> pb.RequestOp:
    if isinstance(op, Put):
        return pb.RequestOp(request_put=pb.PutRequest(key=encode_key(op.key), value=op.value, lease=op.lease))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=encode_key(op.key)))
