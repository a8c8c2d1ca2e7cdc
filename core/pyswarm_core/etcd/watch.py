"""One watch on a prefix that outlives connections, members and leaders of etcd, and neither loses nor repeats an event.

The rules that make it so:
- Resume from what was delivered: the last event's revision or a progress notification. Never from the header of a
  `created` answer, and never ask for progress by hand (etcd < 3.4.25 may answer ahead of events still to come).
- A response that is marked as a fragment is held back until its rest has come, so a revision is never split.
- Events at or below what was delivered are dropped: etcd 3.4 may send some twice.
- After each (re)connection, look whether history from the resume point on still exists. etcd alone tells that only
  when it is compacted beyond that point, and may have thrown away a deletion that lies exactly there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

import grpc

from pyswarm_core.errors import Compacted, InvalidInput, StoreUnavailable
from pyswarm_core.etcd.client import ATTEMPT_TIMEOUT, REQUIRE_LEADER, Client
from pyswarm_core.etcd.faults import Effect, HistoryGone, NotNow, translate
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Entry, Event, EventKind, WatchBatch
from pyswarm_core.v1 import etcd_pb2 as pb

log = get_logger("etcd.watch")

RANGE = "/etcdserverpb.KV/Range"
WATCH = "/etcdserverpb.Watch/Watch"

_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0  # seconds between attempts to connect again


def key_range(prefix: str) -> tuple[bytes, bytes]:
    """etcd's key and range_end for all keys that begin with `prefix`."""
    key = encode_key(prefix)
    for i in reversed(range(len(key))):
        if key[i] < 0xFF:
            return key, key[:i] + bytes([key[i] + 1])
    return key or b"\0", b"\0"


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def entry(kv: pb.KeyValue) -> Entry:
    return Entry(
        kv.key.decode("utf-8", "surrogateescape"),
        kv.value,
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.lease,
    )


class _Stream:
    """One watch on one connection."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self._client = client
        self._call = channel.stream_stream(
            WATCH,
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )(metadata=REQUIRE_LEADER)

    async def create(self, key: bytes, range_end: bytes, start_revision: int) -> None:
        """Returns when etcd has it. TimeoutError if it does not answer; otherwise as `read`."""
        request = pb.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision, progress_notify=True, fragment=True
        )
        async with asyncio.timeout(ATTEMPT_TIMEOUT):
            try:
                await self._call.write(pb.WatchRequest(create_request=request))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the call is over already: read says why
            await self.read()

    async def read(self) -> pb.WatchResponse:
        """Raises NotNow when the stream ended, Compacted, or what etcd answered."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        except asyncio.CancelledError:
            self._client.refuse_when_closed()
            raise
        if not isinstance(response, pb.WatchResponse):
            raise NotNow("etcd ended the stream", sent=False)
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        if response.canceled:
            raise NotNow(response.cancel_reason or "etcd cancelled the watch", sent=False)
        return response

    def close(self) -> None:
        self._call.cancel()


async def watch(
    client: Client, prefix: str, from_revision: int, on_connected: Callable[[bool], None]
) -> AsyncGenerator[WatchBatch, None]:
    """See `store.base.Store.watch`."""
    position = Position(from_revision)
    failures = 0
    connected: bool | None = None

    def tell(now: bool) -> None:
        nonlocal connected
        if now != connected:
            connected = now
            on_connected(now)

    while True:
        stream, endpoint = None, -1
        try:
            channel, endpoint = await client.connected()
            stream = _Stream(client, channel)
            await stream.create(*key_range(prefix), position.next)
            await _check_history(client, position.next)
            tell(True)
            failures = 0
            while True:
                batch = position.accept(await stream.read())
                if batch:
                    yield batch
        except (NotNow, StoreUnavailable, TimeoutError) as failure:
            tell(False)
            client.rotate(endpoint)
            reason = str(failure) or "etcd did not answer"
            log.info("watch interrupted", prefix=prefix, resume_from=position.next, reason=reason)
        finally:
            if stream:
                stream.close()
        position.restart()
        await asyncio.sleep(min(_FIRST_DELAY * 2**failures, _LAST_DELAY) * random.uniform(0.5, 1.0))
        failures = min(failures + 1, 10)


async def compact_revision(client: Client) -> int:
    """The oldest revision that can be read; 0 = not known. etcd tells it only to somebody who watches from before."""
    stream = None
    try:
        channel, _ = await client.connected()
        stream = _Stream(client, channel)
        async with asyncio.timeout(ATTEMPT_TIMEOUT):
            await stream.create(b"\0", b"", 1)
            while True:
                await stream.read()
    except Compacted as answer:
        return answer.compact_revision
    except (NotNow, StoreUnavailable, TimeoutError):
        return 0
    finally:
        if stream:
            stream.close()


async def _check_history(client: Client, next_revision: int) -> None:
    """Raises Compacted if something at or after `next_revision` may have been thrown away."""
    if next_revision <= 1:
        return
    request = pb.RangeRequest(key=b"\0", revision=next_revision - 1, count_only=True)
    try:
        await client.unary(RANGE, request, pb.RangeResponse, Effect.READ)
    except HistoryGone:
        raise Compacted(await compact_revision(client)) from None
    except InvalidInput:
        pass  # that revision is still to come


class Position:
    """Turns responses into batches of whole revisions, each delivered once. `next`: the first not yet delivered."""

    def __init__(self, from_revision: int) -> None:
        self.next = from_revision
        self._held: list[pb.Event] = []

    def restart(self) -> None:
        """The connection is lost, and with it the rest of a response of which only fragments came."""
        self._held.clear()

    def accept(self, response: pb.WatchResponse) -> WatchBatch | None:
        self._held.extend(response.events)
        if response.fragment:
            return None
        held, self._held = self._held, []
        if not held:
            return self._progress(response.header.revision)
        seen: set[tuple[int, bytes]] = set()
        fresh = []
        for event in held:
            identity = (event.kv.mod_revision, event.kv.key)
            if event.kv.mod_revision >= self.next and identity not in seen:
                seen.add(identity)
                fresh.append(event)
        if not fresh:
            return None
        fresh.sort(key=lambda event: event.kv.mod_revision)  # stable, and in order already unless etcd erred
        revision = fresh[-1].kv.mod_revision
        self.next = revision + 1
        return WatchBatch(
            revision,
            tuple(Event(EventKind.DELETE if e.type == pb.Event.DELETE else EventKind.PUT, entry(e.kv)) for e in fresh),
        )

    def _progress(self, revision: int) -> WatchBatch | None:
        if revision < self.next:
            return None
        self.next = revision + 1
        return WatchBatch(revision, ())
