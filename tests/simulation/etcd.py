"""etcd as its clients see it: members that come and go, answers that are lost, watches that stall. The data is one
MemoryStore: consensus itself is taken for granted, what it feels like from outside is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import TypeVar

from tests.simulation.net import Net
from tests.simulation.virtual import Party, later, world_time

from pyswarm_core.errors import OutcomeUnknown, StoreUnavailable
from pyswarm_core.kinds import MESSAGES, PREFIX
from pyswarm_core.store.base import Compare, Entry, Event, Listing, Op, TxnResult, WatchBatch, check_txn
from pyswarm_core.store.memory import MemoryStore
from pyswarm_manager.api.admissions import GUARD_KEY

T = TypeVar("T")

CALL_WITHIN = 5.0  # seconds, for one call with all its attempts: as the real client
CONNECT_WITHIN = 1.0
LEAST_FOR_WRITE = 1.0
ELECTION = (1.0, 2.0)  # seconds that the members need for a new leader
NO_LEADER = 3.0  # seconds after which a member without one ends its watches
TICK = 0.25

Observer = Callable[[int, Sequence[Event]], None]


class ObservedStore(MemoryStore):
    """Tells of each revision at the moment at which it comes to be."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.observers: list[Observer] = []

    def peek(self, key: str) -> Entry | None:
        """As it is at this moment, for those who judge."""
        return self._entries.get(key)

    def _write(self, ops: Sequence[Op]) -> None:
        before = self._revision
        super()._write(ops)
        if self._revision != before:
            revision, events = self._log[-1]
            for observer in tuple(self.observers):  # some leave when they have seen what they wait for
                observer(revision, events)


class Members:
    """Who of them lives, who leads, and whom a client may ask."""

    def __init__(self, net: Net, rng: random.Random, store: MemoryStore, hosts: Sequence[str]) -> None:
        self.hosts = tuple(hosts)
        self.leader: str | None = hosts[0]
        self._net = net
        self._rng = rng
        self._store = store
        self._dead: set[str] = set()
        self._electing: asyncio.TimerHandle | None = None
        self._watchers: dict[Callable[[], None], None] = {}
        net.watch(self.review)

    def is_alive(self, host: str) -> bool:
        return host not in self._dead and self._net.is_up(host)

    def serves(self, host: str) -> bool:
        """It has a leader: itself or one that it reaches."""
        leader = self.leader
        return (
            leader is not None
            and self.is_alive(host)
            and self.is_alive(leader)
            and self._net.linked(host, leader)
            and self._has_majority(leader)
        )

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Called whenever somebody may be asked, or no more."""
        self._watchers[wake] = None
        return lambda: self._watchers.pop(wake, None) and None

    def kill(self, host: str) -> None:
        self._dead.add(host)
        self.review()

    def start(self, host: str) -> None:
        self._dead.discard(host)
        self.review()

    def review(self) -> None:
        if self.leader is not None and not (self.is_alive(self.leader) and self._has_majority(self.leader)):
            self.leader = None
        if self.leader is None and self._electing is None:
            self._electing = later(self._rng.uniform(*ELECTION), self._elect)
        for wake in list(self._watchers):
            wake()

    def _has_majority(self, host: str) -> bool:
        followers = sum(self.is_alive(other) and self._net.linked(host, other) for other in self.hosts)
        return 2 * followers > len(self.hosts)

    def _elect(self) -> None:
        self._electing = None
        able = [host for host in self.hosts if self.is_alive(host) and self._has_majority(host)]
        if able:
            self.leader = self._rng.choice(able)
            self._store.restart_leases()
        self.review()

    async def expire_leases(self) -> None:
        """For ever. Without a leader nothing runs out."""
        while True:
            await asyncio.sleep(TICK)
            if self.leader is not None:
                self._store.expire()


class Trouble:
    """What the weather does to calls. Probabilities from 0 to 1, times in seconds."""

    def __init__(self) -> None:
        self.lost_request = 0.0
        self.lost_answer = 0.0
        self.late_request = 0.0  # the answer is given up, and the write arrives later
        self.slow = 0.0  # the longest that a call may take more
        self.stalled: set[str] = set()  # hosts whose watches stand still, without a word
        self.lose_writes(0)

    def lose_writes(self, count: int, *, of_user: bool = False, of_one: bool = False) -> None:
        """Of the next so many writes of objects nobody hears, and most do not happen. `of_user`: the user's, not the
        leader's. `of_one`: the next one's with its repetitions, and no others."""
        self._left, self._of_user, self._of_one = count, of_user, of_one
        self._key = ""  # with which that one begins

    def takes(self, ops: Sequence[Op]) -> bool:
        """It is one of those that are lost."""
        keys = [op.key for op in ops]
        if not self._left or (GUARD_KEY in keys) is not self._of_user:
            return False
        if not any(key.startswith(PREFIX) and key.split("/")[3] in MESSAGES for key in keys):
            return False
        self._key = self._key or keys[0]
        if self._of_one and keys[0] != self._key:
            return False
        self._left -= 1
        return True


class Client:
    """A `Store` for one manager's process."""

    def __init__(
        self, party: Party, host: str, store: ObservedStore, members: Members, net: Net, trouble: Trouble,
        rng: random.Random,
    ) -> None:  # fmt: skip
        self._party = party
        self._host = host
        self.store = self._store = store
        self._members = members
        self._net = net
        self._trouble = trouble
        self._rng = rng
        own = members.hosts.index(host) if host in members.hosts else 0
        self._order = [*members.hosts[own:], *members.hosts[:own]]
        self.is_cut_off = False  # this process reaches no member, though its host does
        # Where its writes are late: who is given what makes one happen. It hears no answer.
        self.delay: Callable[[Callable[[], None]], object] | None = None
        self.hindered_at = -1e9  # simulated seconds: when it last did not get at once what it asked for
        self.before_write: Callable[[Sequence[Op]], None] = lambda ops: None
        self.after_write: Callable[[Sequence[Op]], None] = lambda ops: None
        self.judge: Callable[[Sequence[Compare], Sequence[Op]], Callable[[TxnResult], None]] = lambda compares, ops: (
            lambda result: None
        )

    # ---- the interface ----

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda: self._store.get_now(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        return await self._read(lambda: self._store.list_now(prefix, revision))

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        check_txn(compares, ops)
        if not ops:
            return await self._read(lambda: self._store.txn_now(compares, ops))
        self.before_write(ops)
        self._party.check()
        verdict = self.judge(compares, ops)

        def happen() -> TxnResult:
            result = self._store.txn_now(compares, ops)
            verdict(result)
            return result

        if self._trouble.takes(ops):
            if self._rng.random() < 0.25:
                await self._write(happen)
            await self._lose(self._now() + self._rng.uniform(0.05, 1.0))
        result = await self._write(happen)
        self.after_write(ops)
        self._party.check()
        return result

    async def grant(self, ttl: int) -> int:
        return await self._write(lambda: _now(self._store.grant(ttl)))

    async def keep_alive(self, lease: int) -> float:
        return await self._read(lambda: _now(self._store.keep_alive(lease)))

    async def revoke(self, lease: int) -> None:
        await self._write(lambda: _now(self._store.revoke(lease)))

    async def compact(self, revision: int) -> None:
        await self._write(lambda: _now(self._store.compact(revision)))

    async def close(self) -> None:
        pass

    async def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        told = on_connected or (lambda connected: None)
        position = from_revision
        failures = 0
        while True:
            member = self._order[0]
            if not self._reaches(member) or not self._members.serves(member):
                told(False)
                self._hinder()
                await asyncio.sleep(min(0.05 * 2**failures, 1.0))
                self._party.check()
                failures = min(failures + 1, 10)
                continue
            await self._pause(self._host, member)
            self._party.check()
            tail = _Tail(self._store, prefix, position)  # raises Compacted
            unwatch = self._members.watch(tail.wake)
            told(True)
            failures = 0
            leaderless_since: float | None = None
            try:
                while self._reaches(member):
                    if self._members.serves(member):
                        leaderless_since = None
                    elif leaderless_since is None:
                        leaderless_since = world_time()
                        later(NO_LEADER, tail.wake)
                    elif world_time() >= leaderless_since + NO_LEADER:
                        break  # it ends streams that want a leader
                    if not tail.batches or member in self._trouble.stalled or leaderless_since is not None:
                        # A member that has lost the others tells nothing: its watch stands still.
                        await tail.wait()
                        self._party.check()
                        continue
                    await self._pause(member, self._host)
                    self._party.check()
                    batch = tail.take()
                    position = batch.revision + 1
                    yield batch
            finally:
                unwatch()
                tail.close()
            told(False)
            self._hinder()

    # ---- inside ----

    async def _read(self, call: Callable[[], T]) -> T:
        """Tried again wherever it fails, for a read may happen twice."""
        deadline = self._now() + CALL_WITHIN
        while True:
            member = await self._member(deadline)
            await self._pause(self._host, member)
            if self._reaches(member) and self._members.serves(member):
                result = call()
                await self._pause(member, self._host)
                if self._reaches(member):
                    self._party.check()
                    return result
            self._hinder()
            await asyncio.sleep(max(0.0, min(2.0, deadline - self._now())))
            self._party.check()

    async def _write(self, call: Callable[[], T]) -> T:
        deadline = self._now() + CALL_WITHIN
        member = await self._member(deadline - LEAST_FOR_WRITE)
        rng, trouble = self._rng, self._trouble
        await self._pause(self._host, member)
        lost = rng.random()
        if self.delay is not None:
            self.delay(lambda: self._happen_late(member, call))
            await self._lose(deadline)
        if lost < trouble.lost_request or not self._reaches(member) or not self._members.is_alive(member):
            await self._lose(deadline)
        if lost < trouble.lost_request + trouble.late_request or not self._members.serves(member):
            # It waits in the member; what comes of it nobody is told.
            later(rng.uniform(0.05, 12.0), self._happen_late, member, call)
            await self._lose(min(deadline, self._now() + rng.uniform(0.01, CALL_WITHIN)))
        result = call()
        await self._pause(member, self._host)
        if lost > 1 - trouble.lost_answer or not self._reaches(member):
            await self._lose(min(deadline, self._now() + rng.uniform(0.01, CALL_WITHIN)))
        self._party.check()
        return result

    def _happen_late(self, member: str, call: Callable[[], object]) -> None:
        if self._members.serves(member):
            try:
                call()
            except Exception:  # an answer like any other, and nobody hears it
                return

    async def _lose(self, until: float) -> None:
        await asyncio.sleep(max(0.0, until - self._now()))
        self._party.check()
        self.hindered_at = world_time()
        raise OutcomeUnknown("etcd did not say whether the write happened: read again before repeating it")

    async def _member(self, deadline: float) -> str:
        """One that can be asked. StoreUnavailable."""
        self._party.check()
        failures = 0
        while True:
            member = self._order[0]
            if self._members.is_alive(member) and (self.is_cut_off or not self._net.linked(self._host, member)):
                await asyncio.sleep(CONNECT_WITHIN)  # nothing answers
            elif self._reaches(member) and self._members.serves(member):
                return member
            else:
                await asyncio.sleep(min(0.02 * 2**failures, 0.5) * self._rng.uniform(0.5, 1.0))
            self._party.check()
            failures += 1
            self._hinder()
            if self._now() >= deadline:
                raise StoreUnavailable("etcd cannot be reached, or has no quorum")

    def _reaches(self, member: str) -> bool:
        return self._members.is_alive(member) and self._net.linked(self._host, member) and not self.is_cut_off

    def _hinder(self) -> None:
        """The next member is asked instead."""
        self.hindered_at = world_time()
        self._order.append(self._order.pop(0))

    async def _pause(self, source: str, target: str) -> None:
        slow = self._trouble.slow * self._rng.random() if self._trouble.slow else 0.0
        await asyncio.sleep(0.0005 + self._net.delay(source, target) + slow)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Tail:
    """What a watch has still to tell, oldest first."""

    def __init__(self, store: ObservedStore, prefix: str, from_revision: int) -> None:
        self._store = store
        self._prefix = prefix
        self.batches: list[WatchBatch] = store.events_since(prefix, from_revision)
        self._future: asyncio.Future[None] | None = None
        store.observers.append(self._observe)

    def close(self) -> None:
        self._store.observers.remove(self._observe)

    def take(self) -> WatchBatch:
        """All there is, as one batch: a client that is behind gets many revisions at once."""
        batches, self.batches = self.batches, []
        if len(batches) == 1:
            return batches[0]
        return WatchBatch(batches[-1].revision, tuple(event for batch in batches for event in batch.events))

    async def wait(self) -> None:
        self._future = asyncio.get_running_loop().create_future()
        await self._future

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _observe(self, revision: int, events: Sequence[Event]) -> None:
        told = tuple(event for event in events if event.entry.key.startswith(self._prefix))
        if told:
            self.batches.append(WatchBatch(revision, told))
            self.wake()


def _now(work: Coroutine[None, None, T]) -> T:
    """The result of a coroutine of MemoryStore's that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("it waited")
