from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from tests.support.clock import VirtualTime
from tests.support.faulty import FaultyStore
from tests.support.stores import delete, eventually, put

from pyswarm_core import kinds
from pyswarm_core.errors import Compacted, StoreUnavailable
from pyswarm_core.kinds import Stored
from pyswarm_core.store.base import Delete, Put, Store, WatchBatch
from pyswarm_core.store.cache import WatchCache
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb


class Recorder:
    """A listener that keeps a copy by what it is told alone, and checks that this is consistent."""

    def __init__(self) -> None:
        self.copy: dict[tuple[str, str], Stored] = {}
        self.changes: list[tuple[str, str, int, int]] = []
        self.revisions: list[int] = []

    def on_change(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        assert self.copy.get((kind, object_id)) == old
        assert old is not None or new is not None
        self.changes.append((kind, object_id, old.version if old else 0, new.version if new else 0))
        if new is None:
            del self.copy[kind, object_id]
        else:
            self.copy[kind, object_id] = new

    def on_revision(self, revision: int) -> None:
        self.revisions.append(revision)


@asynccontextmanager
async def following(
    store: Store, sleep: Callable[[float], object] = asyncio.sleep
) -> AsyncIterator[tuple[WatchCache, Recorder]]:
    recorder = Recorder()
    cache = WatchCache(store, recorder, sleep=sleep)  # type: ignore[arg-type]
    running = asyncio.create_task(cache.run())
    try:
        async with asyncio.timeout(30):
            await cache.wait_for(1)
            yield cache, recorder
            assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def op(message: Stored) -> Put:
    return Put(kinds.key_of(message), kinds.encode(message))


async def save(store: Store, *messages: Stored) -> int:
    return (await store.txn([], [op(m) for m in messages])).revision


async def equal(cache: WatchCache, recorder: Recorder, store: Store) -> None:
    """The copy, the listener's copy and the store hold the same."""
    listing = await store.list(kinds.PREFIX)
    wanted = {}
    for entry in listing.entries:
        kind, object_id = entry.key.removeprefix(kinds.PREFIX).split("/", 1)
        wanted[kind, object_id] = kinds.decode(kind, entry.value, entry.mod_revision)
    held = {(k, i): m for k, message in kinds.MESSAGES.items() for i, m in cache.objects(message).items()}
    assert held == wanted == recorder.copy


async def test_lists_then_follows() -> None:
    store = MemoryStore()
    await save(store, pb.Task(id="a"), pb.Service(id="s"))
    async with following(store) as (cache, recorder):
        assert cache.connected
        assert cache.objects(pb.Task)["a"].version == store.revision
        revision = await save(store, pb.Task(id="a", slot=2), pb.Task(id="b"))
        await cache.wait_for(revision)
        assert cache.revision == revision
        assert {i: t.slot for i, t in cache.objects(pb.Task).items()} == {"a": 2, "b": 0}
        await cache.wait_for(await delete(store, kinds.key("service", "s")))
        assert not cache.objects(pb.Service)
        assert recorder.changes == [
            ("service", "s", 0, 2),
            ("task", "a", 0, 2),
            ("task", "a", 2, 3),
            ("task", "b", 0, 3),
            ("service", "s", 2, 0),
        ]
        assert recorder.revisions == [2, 3, 4]
        await equal(cache, recorder, store)


async def test_an_empty_store_counts_as_listed() -> None:
    async with following(MemoryStore()) as (cache, recorder):
        assert cache.revision == 1
        assert recorder.revisions == [1] and not recorder.changes


async def test_waiting_for_a_revision() -> None:
    store = MemoryStore()
    async with following(store) as (cache, _):
        far = asyncio.create_task(cache.wait_for(store.revision + 3))
        near = asyncio.create_task(cache.wait_for(store.revision + 1))
        given_up = asyncio.create_task(cache.wait_for(store.revision + 1))
        await asyncio.sleep(0)
        given_up.cancel()
        await save(store, pb.Task(id="a"))
        await near
        await save(store, pb.Task(id="b"))
        await asyncio.sleep(0.01)
        assert not far.done()
        await save(store, pb.Task(id="c"))
        await far
        await cache.wait_for(store.revision)  # at once


async def test_who_leads() -> None:
    store = MemoryStore()
    async with following(store) as (cache, recorder):
        assert cache.leader is None and cache.leader_revision == 0
        first = await put(store, kinds.LEADER_KEY, pb.Leader(manager_id="m1").SerializeToString())
        await cache.wait_for(first)
        assert cache.leader == pb.Leader(manager_id="m1") and cache.leader_revision == first
        await cache.wait_for(await put(store, kinds.LEADER_KEY, b"\xff"))
        assert cache.leader == pb.Leader(manager_id="m1")
        await cache.wait_for(await delete(store, kinds.LEADER_KEY))
        assert cache.leader is None
        assert not recorder.changes and len(recorder.revisions) == 4


async def test_what_is_not_ours_or_damaged_is_left_out() -> None:
    store = MemoryStore()
    await put(store, kinds.PREFIX + "later/x", "of a newer version")
    await put(store, kinds.key("task", "bad"), b"\xff\xff\xff")
    await save(store, pb.Task(id="good"))
    async with following(store) as (cache, recorder):
        assert set(cache.objects(pb.Task)) == {"good"}
        await cache.wait_for(await put(store, kinds.key("task", "good"), b"\xff"))
        # Better an old copy than none: nobody concludes from damage that a task is gone.
        assert set(cache.objects(pb.Task)) == {"good"}
        await cache.wait_for(await save(store, pb.Task(id="bad")))
        assert set(cache.objects(pb.Task)) == {"good", "bad"}
        await cache.wait_for(await delete(store, kinds.PREFIX + "later/x"))
        assert len(recorder.copy) == 2


class BreakableStore(FaultyStore):
    """Ends its watches by an error when told so."""

    breaker: asyncio.Future[Exception] | None = None
    watches: int = 0

    def break_watch(self, error: Exception) -> None:
        assert self.breaker
        self.breaker.set_result(error)

    async def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        self.watches += 1
        self.breaker = asyncio.get_running_loop().create_future()
        async with aclosing(self.inner.watch(prefix, from_revision=from_revision, on_connected=on_connected)) as watch:
            while True:
                coming = asyncio.ensure_future(anext(watch))
                await asyncio.wait({coming, self.breaker}, return_when=asyncio.FIRST_COMPLETED)
                if self.breaker.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                    raise self.breaker.result()
                yield coming.result()


async def test_after_compaction_it_lists_again_and_tells_only_the_differences() -> None:
    store = MemoryStore()
    breakable = BreakableStore(store)
    await save(store, *(pb.Task(id=i) for i in "abc"), pb.Node(id="n"))
    async with following(breakable) as (cache, recorder):
        recorder.changes.clear()
        breakable.break_watch(Compacted(5))
        # Changes that no watch tells, their history gone.
        await save(store, pb.Task(id="b", slot=2))
        await delete(store, kinds.key("task", "c"))
        await delete(store, kinds.key("node", "n"))
        revision = await save(store, pb.Task(id="d"))
        await store.compact(revision)
        await cache.wait_for(revision)
        assert recorder.changes == [
            ("task", "c", 2, 0),
            ("node", "n", 2, 0),
            ("task", "b", 2, 3),
            ("task", "d", 0, 6),
        ]
        await eventually(lambda: breakable.watches == 2)
        await cache.wait_for(await save(store, pb.Task(id="e")))
        await equal(cache, recorder, store)


async def test_after_another_error_of_the_watch_it_resumes_without_listing() -> None:
    store = MemoryStore()
    breakable = BreakableStore(store)
    async with following(breakable) as (cache, recorder):
        breakable.break_watch(StoreUnavailable("gone"))
        await eventually(lambda: not cache.connected)
        await save(store, pb.Task(id="a"))
        await cache.wait_for(await delete(store, kinds.key("task", "a")))
        assert recorder.changes == [("task", "a", 0, 2), ("task", "a", 2, 0)]
        assert cache.connected


async def test_an_outage_leaves_the_copy_and_is_shown() -> None:
    store = MemoryStore()
    await save(store, pb.Task(id="a"))
    async with following(store) as (cache, _):
        store.set_available(False)
        await eventually(lambda: not cache.connected)
        assert set(cache.objects(pb.Task)) == {"a"}
        store.set_available(True)
        await cache.wait_for(await save(store, pb.Task(id="b")))
        assert cache.connected and set(cache.objects(pb.Task)) == {"a", "b"}


async def test_it_waits_for_a_store_that_is_not_there_yet() -> None:
    time, store = VirtualTime(), MemoryStore()
    store.set_available(False)
    cache = WatchCache(store, sleep=time.sleep)
    running = asyncio.create_task(cache.run())
    try:
        await time.advance(60)
        assert not running.done() and not cache.connected and cache.revision == 0
        store.set_available(True)
        await time.advance(5)
        assert cache.connected and cache.revision == 1
    finally:
        running.cancel()


async def test_a_store_that_compacts_for_ever_is_no_busy_loop() -> None:
    time = VirtualTime()
    breakable = BreakableStore(MemoryStore())
    running = asyncio.create_task(WatchCache(breakable, sleep=time.sleep).run())
    try:
        await time.advance(0)
        for _ in range(20):
            breakable.break_watch(Compacted(1))
            before = breakable.watches
            await time.settle()
            assert breakable.watches == before
            await time.advance(5)
            assert breakable.watches == before + 1
    finally:
        running.cancel()


async def test_driven_by_hand_as_a_simulator_does() -> None:
    store, recorder = MemoryStore(), Recorder()
    cache = WatchCache(store, recorder)
    store.txn_now([], [op(pb.Task(id="a"))])
    cache.load(store.list_now(kinds.PREFIX))
    store.txn_now([], [op(pb.Task(id="b"))])
    store.txn_now([], [Delete(kinds.key("task", "a"))])
    for batch in store.events_since(kinds.PREFIX, cache.revision + 1):
        cache.apply(batch)
    assert set(cache.objects(pb.Task)) == {"b"} and cache.revision == store.revision
    await equal(cache, recorder, store)


async def test_a_kind_that_is_not_stored_is_refused() -> None:
    with pytest.raises(KeyError):
        WatchCache(MemoryStore()).objects(pb.Leader)  # type: ignore[type-var]
