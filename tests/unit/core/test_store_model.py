"""Random sequences of operations: etcd and memory must answer alike, step by step."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.support.etcd import EtcdProcess
from tests.support.stores import put

from pyswarm_core.errors import Compacted, PyswarmError
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import Compare, Delete, Entry, Event, Field, Op, Put, Store
from pyswarm_core.store.memory import MemoryStore

SOAK = int(os.environ.get("SOAK", "1"))  # how many times longer than usual, and at random

T = TypeVar("T")

NAMES = st.sampled_from(["a", "a/1", "a/2", "b", "c\u00e9", "~"])
VALUES = st.binary(max_size=3)
# Where in the known history: the newest few revisions, what is before and after.
NEARBY = st.integers(-8, 2)


@st.composite
def ops(draw: st.DrawFn) -> list[tuple[str, bytes | None, int]]:
    """(name, value or None to delete, which lease) with no name twice."""
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    return [(n, draw(st.none() | VALUES), draw(st.sampled_from([0, 0, 0, 1, 2, 99]))) for n in names]


class Both(RuleBasedStateMachine):
    """The same to both stores. Etcd is shared with what ran before: its revisions are ahead by `self.ahead`."""

    endpoint: str
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore(lambda: 0.0)
        self.etcd = self.run(self._connect())
        self.prefix = f"/{uuid.uuid4()}/"
        # A first write in both, after whatever was compacted before. (Revision 1, before any write, is special.)
        self.ahead = self.run(put(self.etcd, "/first")) - self.run(put(self.memory, "/first"))
        self.leases: list[tuple[int, int]] = []  # of memory and of etcd

    async def _connect(self) -> EtcdStore:
        return EtcdStore.connect([self.endpoint], None, page=2)

    def teardown(self) -> None:
        for _, lease in self.leases:
            self.run(self.etcd.revoke(lease))
        self.run(self.etcd.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(work, 20))

    def outcome(self, store: Store, work: Coroutine[Any, Any, T]) -> tuple[str, object]:
        """The answer, or which error, in memory's revisions."""
        ahead = self.ahead if store is self.etcd else 0
        try:
            return "answer", self.normal(self.run(work), ahead, store)
        except Compacted as error:
            return "compacted", error.compact_revision - ahead
        except PyswarmError as error:
            return type(error).__name__, None

    def normal(self, value: Any, ahead: int, store: Store) -> object:
        leases = {pair[store is self.etcd]: n for n, pair in enumerate(self.leases, 1)}
        match value:
            case Entry():
                return replace(
                    value,
                    key=value.key,
                    create_revision=value.create_revision - ahead if value.create_revision else 0,
                    mod_revision=value.mod_revision - ahead,
                    lease=leases.get(value.lease, 0),
                )
            case Event():
                return replace(value, entry=self.normal(value.entry, ahead, store))
            case list() | tuple():
                return [self.normal(item, ahead, store) for item in value]
            case int():
                return value - ahead
        if hasattr(value, "entries"):
            return self.normal(value.entries, ahead, store), value.revision - ahead
        if hasattr(value, "succeeded"):
            return value.succeeded, value.revision - ahead
        return value

    def same(self, make: Any) -> object:
        mine, theirs = self.outcome(self.memory, make(self.memory, 0)), self.outcome(self.etcd, make(self.etcd, 1))
        assert mine == theirs
        return mine

    def revision(self, store: Store, offset: int) -> int:
        return max(self.memory.revision + offset, 2) + (self.ahead if store is self.etcd else 0)

    @rule(operations=ops(), compares=st.lists(st.tuples(NAMES, st.sampled_from(Field), st.integers(-4, 0)), max_size=2))
    def transact(self, operations: list[tuple[str, bytes | None, int]], compares: list[tuple[str, Field, int]]) -> None:
        entries = {e.key: e for e in self.memory.list_now(self.prefix).entries}

        def make(store: Store, which: int) -> Coroutine[Any, Any, Any]:
            conditions = []
            for name, field, off in compares:
                entry = entries.get(self.prefix + name)
                if field is Field.VERSION:
                    value = max((entry.version if entry else 0) + min(off + 2, 0), 0)
                else:
                    base = (entry.mod_revision if field is Field.MOD else entry.create_revision) if entry else 0
                    value = base + min(off + 2, 0)
                    value = value + (self.ahead if store is self.etcd else 0) if value > 0 else 0
                conditions.append(Compare(self.prefix + name, field, value))
            done: list[Op] = []
            for name, content, lease in operations:
                key = self.prefix + name
                if content is None:
                    done.append(Delete(key))
                else:
                    # A lease that was never given, too: its use must be refused.
                    known = self.leases[lease - 1][which] if 0 < lease <= len(self.leases) else lease and 10**9
                    done.append(Put(key, content, known))
            return store.txn(conditions, done)

        self.same(make)

    @rule(name=NAMES)
    def get(self, name: str) -> None:
        self.same(lambda store, _: store.get(self.prefix + name))

    @rule(name=st.sampled_from(["", "a", "a/", "zzz"]), offset=NEARBY)
    def list_past(self, name: str, offset: int) -> None:
        self.same(lambda store, _: store.list(self.prefix + name, revision=self.revision(store, offset)))

    @rule(name=st.sampled_from(["", "a", "a/"]), offset=NEARBY)
    def watch_until_now(self, name: str, offset: int) -> None:
        """Everything from a revision on, delimited by a write of our own."""
        key = self.prefix + "a/end"
        self.same(lambda store, _: store.txn([], [Put(key, b"")]))

        async def follow(store: Store) -> list[Event]:
            end = self.revision(store, 0)
            events: list[Event] = []
            start = min(self.revision(store, offset), end)
            async with aclosing(store.watch(self.prefix + name, from_revision=start)) as watch:
                async for batch in watch:
                    events.extend(batch.events)
                    if batch.revision >= end:
                        return events
            raise AssertionError

        self.same(lambda store, _: follow(store))

    @rule(offset=NEARBY)
    def compact(self, offset: int) -> None:
        self.same(lambda store, _: store.compact(self.revision(store, offset)))

    @precondition(lambda self: len(self.leases) < 2)
    @rule()
    def grant(self) -> None:
        self.leases.append((self.run(self.memory.grant(600)), self.run(self.etcd.grant(600))))

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1))
    def revoke(self, which: int) -> None:
        """The keys go in the order that etcd likes; ours is compared as a set by the listing that follows."""
        pair = self.leases[which % len(self.leases)]
        self.run(self.memory.revoke(pair[0]))
        self.run(self.etcd.revoke(pair[1]))

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1))
    def keep_alive(self, which: int) -> None:
        pair = self.leases[which % len(self.leases)]
        assert self.run(self.memory.keep_alive(pair[0])) == self.run(self.etcd.keep_alive(pair[1]))

    @invariant()
    def hold_the_same(self) -> None:
        self.same(lambda store, _: store.list(self.prefix))


def test_etcd_and_memory_behave_alike(etcd: EtcdProcess) -> None:
    with asyncio.Runner() as runner:
        machine = type("Both", (Both,), {"endpoint": etcd.endpoint, "runner": runner})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12 * SOAK,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=SOAK == 1,
            ),
        )
