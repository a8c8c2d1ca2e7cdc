"""The same behaviour from etcd and from memory."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from tests.support.stores import absent, batches, delete, flat, put

from pyswarm_core.errors import Compacted, InvalidInput, NotFound, PyswarmError
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import MAX_TXN_OPS, Compare, Delete, EventKind, Field, Put, Store, TxnResult
from pyswarm_core.store.memory import MemoryStore


@dataclass
class Subject:
    """A store and a corner of it that is this test's own."""

    store: Store
    prefix: str

    def key(self, name: str) -> str:
        return self.prefix + name

    async def revision(self) -> int:
        return (await self.store.list(self.prefix)).revision

    async def expire(self, seconds: float) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.advance(seconds)
        else:
            await asyncio.sleep(seconds)


@pytest.fixture(params=["memory", "etcd"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    store: Store
    if request.param == "memory":
        store = MemoryStore()
    else:
        # Small pages, so that paging takes part in every test.
        store = EtcdStore.connect([request.getfixturevalue("etcd").endpoint], None, page=3)
    yield Subject(store, f"/{uuid.uuid4()}/")
    await store.close()


async def test_a_key_is_created_replaced_and_deleted(subject: Subject) -> None:
    store, key = subject.store, subject.key("a")
    assert await store.get(key) is None
    first = await put(store, key, "1")
    entry = await store.get(key)
    assert entry is not None
    assert (entry.key, entry.value, entry.create_revision, entry.mod_revision, entry.version, entry.lease) == (
        (key, b"1", first, first, 1, 0)
    )
    second = await put(store, key, "2")
    assert second == first + 1
    entry = await store.get(key)
    assert entry is not None and (entry.create_revision, entry.mod_revision, entry.version) == (first, second, 2)
    assert await delete(store, key) == second + 1
    assert await store.get(key) is None
    third = await put(store, key, "3")
    entry = await store.get(key)
    assert entry is not None and (entry.create_revision, entry.version) == (third, 1)


async def test_what_changes_nothing_makes_no_revision(subject: Subject) -> None:
    before = await subject.revision()
    assert await delete(subject.store, subject.key("never")) == before
    assert await subject.store.txn([], []) == TxnResult(True, before)
    failed = await subject.store.txn([Compare(subject.key("a"), Field.MOD, 7)], [Put(subject.key("b"), b"")])
    assert failed == TxnResult(False, before)
    assert await subject.store.get(subject.key("b")) is None


@pytest.mark.parametrize("field", list(Field))
async def test_each_field_is_compared_and_0_means_absent(subject: Subject, field: Field) -> None:
    store, key, other = subject.store, subject.key("a"), subject.key("b")
    created = await put(store, key)
    changed = await put(store, key)
    right = {Field.MOD: changed, Field.CREATE: created, Field.VERSION: 2}[field]

    async def holds(name: str, value: int) -> bool:
        return (await store.txn([Compare(name, field, value)], [Put(subject.key("c"), b"")])).succeeded

    assert await holds(key, right)
    assert not await holds(key, right + 1)
    assert not await holds(key, 0)
    assert await holds(other, 0)
    assert not await holds(other, 1)


async def test_a_transaction_is_all_or_nothing_at_one_revision(subject: Subject) -> None:
    store = subject.store
    await put(store, subject.key("old"))
    ops = [Put(subject.key("a"), b"1"), Delete(subject.key("old")), Put(subject.key("b"), b"2")]
    done = await store.txn([absent(subject.key("a")), absent(subject.key("b"))], ops)
    assert done.succeeded
    listing = await store.list(subject.prefix)
    assert [(e.key, e.value, e.mod_revision) for e in listing.entries] == [
        (subject.key("a"), b"1", done.revision),
        (subject.key("b"), b"2", done.revision),
    ]
    again = await store.txn([absent(subject.key("x")), absent(subject.key("a"))], [Put(subject.key("x"), b"")])
    assert not again.succeeded
    assert await store.get(subject.key("x")) is None


async def test_of_many_that_create_one_key_exactly_one_wins(subject: Subject) -> None:
    key = subject.key("a")
    results = await asyncio.gather(*(subject.store.txn([absent(key)], [Put(key, str(n).encode())]) for n in range(20)))
    winners = [n for n, result in enumerate(results) if result.succeeded]
    entry = await subject.store.get(key)
    assert len(winners) == 1 and entry is not None and entry.value == str(winners[0]).encode()


async def test_the_limits_of_a_transaction(subject: Subject) -> None:
    store = subject.store
    keys = [subject.key(f"{n:03}") for n in range(MAX_TXN_OPS + 1)]
    full = await store.txn([absent(k) for k in keys[:-1]], [Put(k, b"x" * 100) for k in keys[:-1]])
    assert full.succeeded
    with pytest.raises(ValueError, match="129 operations"):
        await store.txn([], [Put(k, b"") for k in keys])
    with pytest.raises(ValueError, match="129 compares"):
        await store.txn([absent(k) for k in keys], [])
    with pytest.raises(ValueError, match="twice"):
        await store.txn([], [Put(keys[0], b""), Delete(keys[0])])
    assert await subject.revision() == full.revision


async def test_a_listing_is_sorted_complete_and_of_one_prefix(subject: Subject) -> None:
    store = subject.store
    names = ["b", "a/2", "a/1", "a", "c\u00e9", "\U0001f680", "~"]
    for name in names:
        await put(store, subject.key(name), name)
    await put(store, subject.prefix[:-1] + "0", "not under the prefix, but next to it")
    listing = await store.list(subject.prefix)
    assert [e.key for e in listing.entries] == sorted(map(subject.key, names), key=lambda k: k.encode())
    assert listing.revision >= max(e.mod_revision for e in listing.entries)
    assert [e.key for e in (await store.list(subject.key("a/"))).entries] == [subject.key("a/1"), subject.key("a/2")]
    assert (await store.list(subject.key("nothing"))).entries == ()


async def test_a_listing_of_the_past(subject: Subject) -> None:
    store = subject.store
    for n in range(4):
        await put(store, subject.key(f"{n}"), "old")
    past = await subject.revision()
    before = await store.list(subject.prefix)
    await put(store, subject.key("2"), "new")
    await delete(store, subject.key("3"))
    await put(store, subject.key("4"), "new")
    assert await store.list(subject.prefix, revision=past) == before
    assert [e.value for e in (await store.list(subject.prefix)).entries] == [b"old", b"old", b"new", b"new"]
    with pytest.raises(InvalidInput):
        await store.list(subject.prefix, revision=await subject.revision() + 1000)


async def test_a_listing_in_pages_is_of_one_moment(subject: Subject) -> None:
    """While all of ten keys are always changed together."""
    store, keys = subject.store, [subject.key(f"{n}") for n in range(10)]
    stop = asyncio.Event()

    async def change() -> None:
        for n in itertools.count():
            await store.txn([], [Put(key, str(n).encode()) for key in keys])
            await asyncio.sleep(0)
            if stop.is_set():
                return

    changing = asyncio.create_task(change())
    try:
        for _ in range(30):
            listing = await store.list(subject.prefix)
            assert len({(e.value, e.mod_revision) for e in listing.entries}) <= 1
            assert len(listing.entries) in (0, 10)
            await asyncio.sleep(0)
    finally:
        stop.set()
        await changing


async def test_a_watch_tells_all_in_order_and_keeps_transactions_whole(subject: Subject) -> None:
    store = subject.store
    start = await subject.revision() + 1
    a = await put(store, subject.key("a"), "1")
    two = (await store.txn([], [Put(subject.key("b"), b"2"), Delete(subject.key("a"))])).revision
    await put(store, "/elsewhere" + subject.prefix, "not told")
    last = await put(store, subject.key("b"), "3")
    got = await batches(store, subject.prefix, start, 4)
    assert [(e.kind, e.entry.key, e.entry.value, e.entry.mod_revision) for e in flat(got)] == [
        (EventKind.PUT, subject.key("a"), b"1", a),
        (EventKind.PUT, subject.key("b"), b"2", two),
        (EventKind.DELETE, subject.key("a"), b"", two),
        (EventKind.PUT, subject.key("b"), b"3", last),
    ]
    put_event, gone = flat(got)[3].entry, flat(got)[2].entry
    assert (put_event.create_revision, put_event.version) == (two, 2)
    assert (gone.create_revision, gone.version, gone.lease) == (0, 0, 0)
    for batch in got:
        assert batch.revision == batch.events[-1].entry.mod_revision
    assert [b.revision for b in got] == sorted({b.revision for b in got})


async def test_a_watch_tells_what_comes_later_too(subject: Subject) -> None:
    store = subject.store
    start = await subject.revision() + 1
    reached = asyncio.Event()
    seen: list[int] = []

    async def follow() -> None:
        async with aclosing(
            store.watch(subject.prefix, from_revision=start, on_connected=lambda on: reached.set() if on else None)
        ) as watch:
            async for batch in watch:
                seen.extend(e.entry.mod_revision for e in batch.events)
                if len(seen) == 100:
                    return

    following = asyncio.create_task(follow())
    await asyncio.wait_for(reached.wait(), 10)
    written = [await put(store, subject.key(f"{n}")) for n in range(100)]
    await asyncio.wait_for(following, 10)
    assert seen == written


async def test_resuming_anywhere_gives_exactly_the_rest(subject: Subject) -> None:
    store = subject.store
    start = await subject.revision() + 1
    for n in range(6):
        await store.txn([], [Put(subject.key(f"{n}/{m}"), b"") for m in range(n + 1)])
    everything = flat(await batches(store, subject.prefix, start, 21))
    for n in range(6):
        rest = [event for event in everything if event.entry.mod_revision >= start + n]
        assert flat(await batches(store, subject.prefix, start + n, len(rest))) == rest


async def test_a_watch_from_the_future_skips_the_present(subject: Subject) -> None:
    store = subject.store
    now = await subject.revision()
    watching = asyncio.create_task(batches(store, subject.prefix, now + 3, 1))
    await asyncio.sleep(0.05)
    for n in range(3):
        await put(store, subject.key("a"), str(n))
    assert [(b.revision, b.events[0].entry.value) for b in await watching] == [(now + 3, b"2")]


async def test_several_watches_are_independent(subject: Subject) -> None:
    store = subject.store
    start = await subject.revision() + 1
    for n in range(9):
        await put(store, subject.key(f"{n % 3}/{n}"))
    results = await asyncio.gather(*(batches(store, subject.key(f"{m}/"), start, 3) for m in range(3)))
    for m, result in enumerate(results):
        assert [e.entry.key for e in flat(result)] == [subject.key(f"{m}/{n}") for n in range(9) if n % 3 == m]


async def test_large_transactions_come_whole(subject: Subject) -> None:
    """Over a MiB in one revision: etcd sends it in fragments."""
    store = subject.store
    start = await subject.revision() + 1
    ops = [Put(subject.key(f"{n:03}"), bytes([n]) * 11_000) for n in range(120)]
    revisions = [(await store.txn([], ops)).revision for _ in range(3)]
    got = await batches(store, subject.prefix, start, 360)
    for batch in got:
        counts = {r: sum(e.entry.mod_revision == r for e in batch.events) for r in revisions}
        assert set(counts.values()) <= {0, 120}
    assert [(e.entry.key, e.entry.value) for e in flat(got)] == [(op.key, op.value) for op in ops] * 3


async def test_after_compaction_old_revisions_are_refused_and_a_relist_goes_on(subject: Subject) -> None:
    store, key = subject.store, subject.key("a")
    first = await put(store, key, "1")
    second = await put(store, key, "2")
    third = await put(store, key, "3")
    await store.compact(second)
    for revision in (first, second):
        with pytest.raises(Compacted) as refused:
            await batches(store, subject.prefix, revision, 1)
        assert refused.value.compact_revision == second
    with pytest.raises(Compacted) as refused:
        await store.list(subject.prefix, revision=first)
    assert refused.value.compact_revision == second
    assert [e.value for e in (await store.list(subject.prefix, revision=second)).entries] == [b"2"]
    assert [e.entry.value for e in flat(await batches(store, subject.prefix, third, 1))] == [b"3"]

    listing = await store.list(subject.prefix)
    later = await put(store, key, "4")
    assert [b.revision for b in await batches(store, subject.prefix, listing.revision + 1, 1)] == [later]
    await store.compact(second)  # again: no error
    await store.compact(first)
    with pytest.raises(InvalidInput):
        await store.compact(later + 1000)


async def test_compaction_does_not_hide_a_deletion_from_a_resumed_watch(subject: Subject) -> None:
    """etcd forgets a deletion that lies exactly at the compacted revision, and would not say so."""
    store, key = subject.store, subject.key("a")
    await put(store, key)
    gone = await delete(store, key)
    await put(store, subject.key("b"))
    await store.compact(gone)
    with pytest.raises(Compacted):
        await batches(store, subject.prefix, gone, 2)


async def test_compaction_leaves_a_running_watch_alone(subject: Subject) -> None:
    store = subject.store
    start = await subject.revision() + 1
    async with asyncio.timeout(20), aclosing(store.watch(subject.prefix, from_revision=start)) as watch:
        for n in range(5):
            revision = await put(store, subject.key("a"), str(n))
            batch = await anext(b async for b in watch if b.events)
            assert batch.revision == revision
            await store.compact(revision)
        await store.compact(await put(store, "/elsewhere" + subject.prefix))
        revision = await put(store, subject.key("a"), "last")
        assert (await anext(b async for b in watch if b.events)).revision == revision


async def test_a_lease_takes_its_keys_along(subject: Subject) -> None:
    store = subject.store
    lease = await store.grant(60)
    kept = await store.grant(60)
    start = await subject.revision() + 1
    for name in ("a", "b", "detached"):
        await put(store, subject.key(name), lease=lease)
    await put(store, subject.key("detached"))
    await put(store, subject.key("moved"), lease=lease)
    await put(store, subject.key("moved"), lease=kept)
    entry = await store.get(subject.key("a"))
    assert entry is not None and entry.lease == lease
    before = await subject.revision()
    await store.revoke(lease)
    assert [e.key for e in (await store.list(subject.prefix)).entries] == [
        subject.key("detached"),
        subject.key("moved"),
    ]
    got = await batches(store, subject.prefix, start, 8)
    gone = [e for e in flat(got) if e.kind is EventKind.DELETE]
    assert {e.entry.key for e in gone} == {subject.key("a"), subject.key("b")}
    assert {e.entry.mod_revision for e in gone} == {before + 1}
    assert await store.keep_alive(lease) == 0
    assert await store.keep_alive(kept) > 0
    await store.revoke(lease)  # again: no error
    with pytest.raises(NotFound):
        await put(store, subject.key("c"), lease=lease)
    failed = await store.txn([absent(subject.key("moved"))], [Put(subject.key("c"), b"", lease)])
    assert not failed.succeeded  # the comparison is looked at first
    await store.revoke(kept)


async def test_a_lease_runs_out_unless_it_is_kept_alive(subject: Subject) -> None:
    store = subject.store
    dying, living = await store.grant(2), await store.grant(2)
    await put(store, subject.key("dying"), lease=dying)
    await put(store, subject.key("living"), lease=living)
    for _ in range(5):
        assert await store.keep_alive(living) == pytest.approx(2, abs=1)
        await subject.expire(1)
    assert await store.get(subject.key("dying")) is None
    assert await store.get(subject.key("living")) is not None
    assert await store.keep_alive(dying) == 0
    await store.revoke(living)
    assert await store.get(subject.key("living")) is None


async def test_a_lease_needs_a_time(subject: Subject) -> None:
    with pytest.raises(ValueError, match="0 seconds"):
        await subject.store.grant(0)


async def test_after_close_everything_is_refused_and_watches_end(subject: Subject) -> None:
    watching = asyncio.create_task(batches(subject.store, subject.prefix, await subject.revision() + 1, 1))
    await asyncio.sleep(0.05)
    await subject.store.close()
    with pytest.raises(PyswarmError, match="closed"):
        await watching
    with pytest.raises(PyswarmError, match="closed"):
        await subject.store.get("x")
    with pytest.raises(PyswarmError, match="closed"):
        await batches(subject.store, subject.prefix, 1, 1)
