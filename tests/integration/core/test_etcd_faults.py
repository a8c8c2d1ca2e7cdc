"""What only a real etcd that dies, freezes and comes back can show. No root needed. One file, for an etcd for each
is slow to start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from tests.support.etcd import EtcdProcess, etcd_cluster, needs_etcd
from tests.support.relay import Relay, relay_to
from tests.support.stores import absent, batches, delete, eventually, flat, put

from pyswarm_core import kinds, tls
from pyswarm_core.errors import Compacted, InvalidInput, OutcomeUnknown, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import Event, EventKind, Put, Store
from pyswarm_core.store.cache import WatchCache
from pyswarm_core.v1 import objects_pb2 as pb

pytestmark = needs_etcd
PREFIX = "/test/"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as process:
        yield process


@asynccontextmanager
async def connected(
    *endpoints: str, identity: tls.Identity | None = None, timeout: float = 5
) -> AsyncIterator[EtcdStore]:
    store = EtcdStore.connect(endpoints, identity, timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


class Load:
    """Writes keys 0, 1, 2 … two at a time, each pair exactly once whatever happens to the answers, and watches them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events: list[Event] = []
        self.written = 0
        self.unknown = 0
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        start = (await self.store.list(PREFIX)).revision + 1
        self._tasks = [asyncio.create_task(self._watch(start)), asyncio.create_task(self._write())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self) -> None:
        while not self._stop:
            keys = [f"{PREFIX}{self.written:06}/{half}" for half in "ab"]
            try:
                result = await self.store.txn([absent(keys[0])], [Put(key, b"x") for key in keys])
                # Not the first attempt, then: an unknown one had happened.
                assert result.succeeded or self.unknown
            except StoreUnavailable:
                continue
            except OutcomeUnknown:
                self.unknown += 1
                continue
            self.written += 1

    async def _watch(self, start: int) -> None:
        async with aclosing(self.store.watch(PREFIX, from_revision=start)) as watch:
            async for batch in watch:
                revisions = {e.entry.mod_revision for e in batch.events}
                for revision in revisions:
                    whole = [e.entry.key for e in batch.events if e.entry.mod_revision == revision]
                    assert len(whole) == 2, f"revision {revision} is torn: {whole}"
                self.events.extend(batch.events)

    async def wrote(self, more: int) -> None:
        """Returns when so many more have been written."""
        wanted = self.written + more
        await self._until(lambda: self.written >= wanted)

    async def check(self) -> None:
        """Every event once, in order, and none missing."""
        self._stop = True
        await asyncio.wait_for(self._tasks[1], 30)
        await self._until(lambda: len(self.events) >= 2 * self.written)
        listing = await self.store.list(PREFIX)
        assert len(listing.entries) == 2 * self.written
        assert [e.entry for e in self.events] == sorted(listing.entries, key=lambda e: (e.mod_revision, e.key))
        assert all(e.kind is EventKind.PUT for e in self.events)

    async def _until(self, condition) -> None:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(60):
            while not condition():
                for task in self._tasks:
                    if task.done() and (task is self._tasks[0] or task.exception()):
                        task.result()
                        raise AssertionError("the watch has ended")
                await asyncio.sleep(0.01)


async def test_kill_9_and_restart_lose_and_repeat_nothing(etcd: EtcdProcess) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    async with connected(etcd.endpoint) as store, Load(store) as load:
        for _ in range(6):
            await load.wrote(rng.randrange(1, 400))
            await asyncio.to_thread(etcd.kill)
            await asyncio.sleep(rng.uniform(0, 0.5))
            # Not in a thread: what it is started from must live as long as it does.
            etcd.start(wait=False)
        await load.wrote(50)
        await load.check()


async def test_a_frozen_etcd_loses_and_repeats_nothing(etcd: EtcdProcess) -> None:
    async with connected(etcd.endpoint) as store, Load(store) as load:
        for seconds in (0.3, 1.5, 3):
            await load.wrote(100)
            etcd.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                etcd.resume()
        await load.wrote(50)
        await load.check()


async def test_cut_connections_lose_and_repeat_nothing(etcd: EtcdProcess) -> None:
    async with relay_to(etcd.endpoint) as relay, connected(relay.endpoint) as store, Load(store) as load:
        for n in range(10):
            await load.wrote(40)
            await relay.cut()
            await asyncio.sleep(0.05 * (n % 3))
            await relay.start()
        await load.wrote(50)
        await load.check()


async def test_members_of_a_cluster_die_in_turn(tmp_path: Path) -> None:
    authority = tls.Authority.create()
    identity = authority.issue(common_name="m1", role="manager")
    with etcd_cluster(tmp_path, authority=authority) as members:
        endpoints = [m.endpoint for m in members]
        async with connected(*endpoints, identity=identity) as store, Load(store) as load:
            for member in members * 2:
                await load.wrote(50)
                await asyncio.to_thread(member.kill)
                # Two of three must go on without it.
                await load.wrote(50)
                member.start(wait=False)
                await asyncio.to_thread(member.wait_ready)
            await load.check()


async def test_a_frozen_member_is_left_for_another(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) as members:
        async with connected(*[m.endpoint for m in members]) as store, Load(store) as load:
            await load.wrote(50)
            members[0].pause()  # where all calls and the watch are
            try:
                assert (await store.list(PREFIX)).entries
                await load.wrote(200)
                # The watch itself only notices by the unanswered ping.
                await load.check()
            finally:
                members[0].resume()


async def test_a_member_without_majority_says_so(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) as members:
        async with connected(*[m.endpoint for m in members]) as store:
            await put(store, PREFIX + "a")
            for member in members[1:]:
                await asyncio.to_thread(member.kill)
            with pytest.raises((StoreUnavailable, OutcomeUnknown)):
                await put(store, PREFIX + "b")
            # Once its leader is known to be gone nothing is even tried.
            async with asyncio.timeout(20):
                while True:
                    with pytest.raises((StoreUnavailable, OutcomeUnknown)) as refused:
                        await put(store, PREFIX + "b")
                    if refused.type is StoreUnavailable:
                        break
            with pytest.raises(StoreUnavailable):
                await store.get(PREFIX + "a")
            members[1].start(wait=False)
            await asyncio.to_thread(members[1].wait_ready)
            assert await store.get(PREFIX + "a") is not None
            await put(store, PREFIX + "c")


async def test_a_dead_etcd_is_an_outage_and_a_frozen_one_an_unknown_outcome(etcd: EtcdProcess) -> None:
    async with connected(etcd.endpoint, timeout=1) as store:
        await put(store, PREFIX + "a", "1")
        etcd.pause()
        try:
            with pytest.raises(OutcomeUnknown, match="read again"):
                await put(store, PREFIX + "a", "2")
            with pytest.raises(StoreUnavailable):
                await store.get(PREFIX + "a")
        finally:
            etcd.resume()
        await asyncio.to_thread(etcd.kill)
        for call in (put(store, PREFIX + "a", "3"), store.get(PREFIX + "a"), store.list(PREFIX), store.grant(5)):
            with pytest.raises(StoreUnavailable, match=f"cannot be reached at {etcd.endpoint}"):
                await call
        etcd.start()
        entry = await store.get(PREFIX + "a")
        assert entry is not None and entry.value in (b"1", b"2")


async def test_a_write_whose_answer_is_lost_is_unknown_and_has_happened(etcd: EtcdProcess) -> None:
    async with relay_to(etcd.endpoint) as relay, connected(relay.endpoint, timeout=1) as store:
        await put(store, PREFIX + "a", "1")
        relay.freeze(requests=False)
        with pytest.raises(OutcomeUnknown, match="read again"):
            await put(store, PREFIX + "a", "2")
        relay.thaw()
        entry = await store.get(PREFIX + "a")
        assert entry is not None and entry.value == b"2"


async def test_calls_wait_out_a_short_restart(etcd: EtcdProcess) -> None:
    told: list[bool] = []

    async def follow(store: EtcdStore) -> None:
        async with aclosing(store.watch(PREFIX, from_revision=1, on_connected=told.append)) as watch:
            async for _ in watch:
                pass

    async with connected(etcd.endpoint) as store:
        await put(store, PREFIX + "a", "1")
        following = asyncio.create_task(follow(store))
        try:
            await eventually(lambda: told == [True])
            await asyncio.to_thread(etcd.kill)
            # Before that, a write could be sent on the dead connection, and nobody would know what became of it.
            await eventually(lambda: told[-1:] == [False])
            waiting = asyncio.create_task(put(store, PREFIX + "a", "2"))
            reading = asyncio.create_task(store.get(PREFIX + "a"))
            await asyncio.sleep(0.3)  # of an outage
            etcd.start(wait=False)
            assert await waiting > 0
            assert await reading is not None
        finally:
            following.cancel()


async def test_the_watch_tells_when_it_is_connected(etcd: EtcdProcess) -> None:
    told: list[bool] = []

    async def follow(store: EtcdStore) -> None:
        async with aclosing(store.watch(PREFIX, from_revision=1, on_connected=told.append)) as watch:
            async for _ in watch:
                pass

    async with relay_to(etcd.endpoint) as relay, connected(relay.endpoint) as store:
        following = asyncio.create_task(follow(store))
        try:
            await eventually(lambda: told == [True])
            await relay.cut()
            await eventually(lambda: told == [True, False])
            await asyncio.sleep(1)  # several attempts, and not a word about each
            assert told == [True, False]
            await relay.start()
            await eventually(lambda: told == [True, False, True])
        finally:
            following.cancel()


async def test_a_frozen_connection_is_noticed_by_its_ping(etcd: EtcdProcess) -> None:
    """A link that swallows everything gives no error by itself."""
    told: list[bool] = []

    async def follow(store: EtcdStore) -> None:
        async with aclosing(store.watch(PREFIX, from_revision=1, on_connected=told.append)) as watch:
            async for _ in watch:
                pass

    async with relay_to(etcd.endpoint) as relay, connected(relay.endpoint) as store:
        following = asyncio.create_task(follow(store))
        try:
            await eventually(lambda: told == [True])
            relay.freeze()
            await eventually(lambda: told[-1] is False, timeout=25)
            relay.thaw()
            await eventually(lambda: told[-1], timeout=25)
        finally:
            following.cancel()


async def test_progress_without_events_moves_the_resume_point(tmp_path: Path) -> None:
    arguments = ["--experimental-watch-progress-notify-interval", "200ms"]
    with EtcdProcess(tmp_path, arguments=arguments) as etcd:
        async with (
            relay_to(etcd.endpoint) as relay,
            connected(relay.endpoint) as slow,
            connected(etcd.endpoint) as fast,
        ):
            await _progress(relay, slow, fast)


async def _progress(relay: Relay, store: Store, other: Store) -> None:
    start = await put(other, PREFIX + "a") + 1
    async with asyncio.timeout(30), aclosing(store.watch(PREFIX, from_revision=start)) as watch:
        coming = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.3)
        elsewhere = [await put(other, "/elsewhere") for _ in range(5)]
        batch = await coming
        while batch.revision < elsewhere[-1]:
            assert batch.events == ()
            batch = await anext(watch)
        # Compacted beyond the last event, but not beyond what is known: no relist is needed.
        coming = asyncio.ensure_future(anext(watch))
        await relay.cut()
        await other.compact(elsewhere[-1])
        await relay.start()
        revision = await put(other, PREFIX + "b")
        batch = await coming
        while not batch.events:
            batch = await anext(watch)
        assert batch.revision == revision


async def test_a_watch_that_slept_through_a_compaction_says_so_and_the_cache_lists_again(etcd: EtcdProcess) -> None:
    async with relay_to(etcd.endpoint) as relay, connected(relay.endpoint) as store, connected(etcd.endpoint) as other:
        key = kinds.key("task", "a")
        await other.txn([], [Put(key, kinds.encode(pb.Task(id="a"))), Put(key + "b", kinds.encode(pb.Task(id="ab")))])
        cache = WatchCache(store)
        running = asyncio.create_task(cache.run())
        start = (await store.list(kinds.PREFIX)).revision + 1
        watching = asyncio.create_task(batches(store, kinds.PREFIX, start, 100, timeout=30))
        try:
            await asyncio.wait_for(cache.wait_for(start - 1), 10)
            await eventually(lambda: cache.connected)
            await relay.cut()
            await eventually(lambda: not cache.connected)
            assert set(cache.objects(pb.Task)) == {"a", "ab"}  # what was known is still served
            await delete(other, key)
            revision = await put(other, key + "c", kinds.encode(pb.Task(id="ac")))
            await other.compact(revision)
            await relay.start()
            with pytest.raises(Compacted) as compacted:
                await watching
            assert compacted.value.compact_revision == revision
            await asyncio.wait_for(cache.wait_for(revision), 10)
            assert set(cache.objects(pb.Task)) == {"ab", "ac"}
            revision = await put(other, key + "d", kinds.encode(pb.Task(id="ad")))
            await asyncio.wait_for(cache.wait_for(revision), 10)
            assert "ad" in cache.objects(pb.Task) and cache.connected
        finally:
            running.cancel()
            watching.cancel()


async def test_leases_survive_a_restart_and_renewal_does_too(etcd: EtcdProcess) -> None:
    async with connected(etcd.endpoint) as store:
        lease = await store.grant(30)
        await put(store, PREFIX + "a", lease=lease)
        await asyncio.to_thread(etcd.kill)
        renewing = asyncio.create_task(store.keep_alive(lease))
        await asyncio.sleep(0.1)
        etcd.start(wait=False)
        assert await renewing == 30
        entry = await store.get(PREFIX + "a")
        assert entry is not None and entry.lease == lease


@pytest.mark.parametrize("role", ["manager", "etcd", "worker", "client"])
async def test_only_managers_reach_the_store(tmp_path: Path, role: tls.Role) -> None:
    authority = tls.Authority.create()
    server = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    with EtcdProcess(tmp_path, identity=server) as etcd:
        identity = authority.issue(common_name="x", role=role)
        async with connected(etcd.endpoint, identity=identity, timeout=1.5) as store:
            if role in tls.SERVER_ROLES:
                await put(store, PREFIX + "a")
                assert len(flat(await batches(store, PREFIX, 1, 1))) == 1
            else:
                with pytest.raises(StoreUnavailable):
                    await store.get(PREFIX + "a")


async def test_strangers_and_plaintext_are_refused(tmp_path: Path) -> None:
    authority = tls.Authority.create()
    server = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    with EtcdProcess(tmp_path, identity=server) as etcd:
        for identity in (None, tls.Authority.create().issue(common_name="x", role="manager")):
            async with connected(etcd.endpoint, identity=identity, timeout=1.5) as store:
                with pytest.raises(StoreUnavailable, match="certificates"):
                    await put(store, PREFIX + "a")


async def test_a_full_etcd_says_so_and_is_not_asked_again(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path, arguments=["--quota-backend-bytes", str(1 << 20)]) as etcd:
        async with connected(etcd.endpoint) as store:
            with pytest.raises(PyswarmError, match="takes no more data") as full:
                for n in range(500):
                    await put(store, f"{PREFIX}{n}", b"x" * 100_000)
                    await asyncio.sleep(0.01)  # etcd looks at its size only now and then
            assert not full.value.retryable
            assert await store.get(PREFIX + "0") is not None


async def test_a_request_that_is_too_large_says_so(etcd: EtcdProcess) -> None:
    async with connected(etcd.endpoint) as store:
        for size in (1_600_000, 3_000_000):  # refused by etcd, and by gRPC before it
            with pytest.raises(InvalidInput, match="large"):
                await put(store, PREFIX + "a", b"x" * size)
