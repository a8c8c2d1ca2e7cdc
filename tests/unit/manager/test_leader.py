from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from tests.support.clock import VirtualTime
from tests.support.faulty import DOWN, LATE, LOST_AFTER, LOST_BEFORE, FaultyStore
from tests.support.stores import delete, put

from pyswarm_core.errors import OutcomeUnknown
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.store.base import Compare, Entry, Field, Op, TxnResult
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.leader import Election, Leadership

TTL = 6


class Stage:
    """Managers on one store, under virtual time."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.store = MemoryStore(self.time.clock)
        self.elections: list[Election] = []
        self.campaigns: list[asyncio.Task[Leadership]] = []

    def manager(self, name: str, store: FaultyStore | MemoryStore | None = None) -> Election:
        leader = pb.Leader(manager_id=name, address=f"{name}:2377")
        election = Election(
            store or self.store, leader, ttl=TTL, margin=1, clock=self.time.clock, sleep=self.time.sleep
        )
        self.elections.append(election)
        return election

    def campaign(self, election: Election) -> asyncio.Task[Leadership]:
        task = asyncio.create_task(election.campaign())
        self.campaigns.append(task)
        return task

    async def pass_time(self, seconds: float) -> None:
        """In small steps, leases running out on the way."""
        for _ in range(round(seconds * 10)):
            await self.time.advance(0.1)
            self.store.expire()

    async def who(self) -> str:
        entry = await self.store.get(LEADER_KEY)
        return pb.Leader.FromString(entry.value).manager_id if entry else ""


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    for task in stage.campaigns:
        task.cancel()
    for election in stage.elections:
        await election.resign()


async def test_the_first_leads_and_the_second_waits_for_its_resignation(stage: Stage) -> None:
    first, second = stage.manager("m1"), stage.manager("m2")
    term = await first.campaign()
    waiting = stage.campaign(second)
    await stage.pass_time(60)
    assert not waiting.done() and not term.lost.is_set()
    assert await stage.who() == "m1"
    assert term.fence == Compare(LEADER_KEY, Field.CREATE, term.create_revision)
    await first.resign()
    assert term.lost.is_set()
    await stage.pass_time(0.1)
    assert waiting.done() and await stage.who() == "m2"
    assert waiting.result().create_revision > term.create_revision


async def test_of_many_exactly_one_leads(stage: Stage) -> None:
    campaigns = [stage.campaign(stage.manager(f"m{n}")) for n in range(7)]
    await stage.pass_time(20)
    assert sum(c.done() for c in campaigns) == 1
    winner = next(i for i, c in enumerate(campaigns) if c.done())
    assert await stage.who() == f"m{winner}"


async def test_a_dead_leader_is_succeeded_after_its_lease(stage: Stage) -> None:
    first = stage.manager("m1")
    await first.campaign()
    waiting = stage.campaign(stage.manager("m2"))
    await first._stop_tasks()  # as kill -9 would
    await stage.pass_time(TTL - 0.5)
    assert not waiting.done()
    await stage.pass_time(1)
    assert waiting.done() and await stage.who() == "m2"


async def test_in_an_outage_the_term_is_lost_before_the_lease_can_run_out(stage: Stage) -> None:
    term = await stage.manager("m1").campaign()
    await stage.pass_time(30)
    stage.store.set_available(False)
    last_moment = stage.time.clock() + TTL
    while not term.lost.is_set():
        await stage.pass_time(0.1)
        assert stage.time.clock() < last_moment
    stage.store.set_available(True)
    assert term.lost.is_set()  # for ever


async def test_a_short_outage_is_survived(stage: Stage) -> None:
    term = await stage.manager("m1").campaign()
    for _ in range(5):
        stage.store.set_available(False)
        await stage.pass_time(2)
        stage.store.set_available(True)
        await stage.pass_time(3)
    assert not term.lost.is_set() and await stage.who() == "m1"


class HangingStore(FaultyStore):
    """Does not answer renewals, nor refuse them."""

    hanging = False

    async def keep_alive(self, lease: int) -> float:
        if self.hanging:
            await asyncio.get_running_loop().create_future()
        return await self.inner.keep_alive(lease)


async def test_a_store_that_never_answers_does_not_hold_the_decision_up(stage: Stage) -> None:
    store = HangingStore(stage.store)
    term = await stage.manager("m1", store).campaign()
    store.hanging = True
    await stage.pass_time(TTL)
    assert term.lost.is_set()


class LyingStore(FaultyStore):
    """Says that every lease lives, as etcd 3.4 may, and tells watches nothing."""

    async def keep_alive(self, lease: int) -> float:
        return TTL

    def watch(self, prefix, *, from_revision, on_connected=None):  # type: ignore[no-untyped-def]
        return self.inner.watch("/nothing", from_revision=from_revision)


async def test_the_leases_word_is_not_taken(stage: Stage) -> None:
    term = await stage.manager("m1", LyingStore(stage.store)).campaign()
    await stage.pass_time(2)
    assert not term.lost.is_set()
    await stage.store.revoke(term.lease)
    await put(stage.store, LEADER_KEY, pb.Leader(manager_id="m2").SerializeToString())
    await stage.pass_time(2)
    assert term.lost.is_set()


async def test_a_deleted_key_is_noticed_at_once(stage: Stage) -> None:
    term = await stage.manager("m1").campaign()
    await stage.pass_time(0.1)
    await delete(stage.store, LEADER_KEY)
    await stage.time.settle()
    assert term.lost.is_set()


async def test_a_key_of_a_similar_name_does_not_matter(stage: Stage) -> None:
    await put(stage.store, LEADER_KEY + "s", "somebody")
    term = await stage.manager("m1").campaign()
    await stage.pass_time(0.1)
    await delete(stage.store, LEADER_KEY + "s")
    await stage.pass_time(5)
    assert not term.lost.is_set()


class FreezingStore(FaultyStore):
    """The process stands still between the answer and the look at it."""

    freeze: Callable[[], None] = staticmethod(lambda: None)

    async def get(self, key: str) -> Entry | None:
        entry = await self.inner.get(key)
        self.freeze()
        return entry


async def test_who_was_frozen_does_not_believe_a_late_confirmation(stage: Stage) -> None:
    store = FreezingStore(stage.store)
    term = await stage.manager("m1", store).campaign()
    await stage.pass_time(5)
    assert not term.lost.is_set()
    store.freeze = lambda: stage.time.freeze(TTL)
    await stage.time.advance(2)
    assert term.lost.is_set()


async def test_who_was_frozen_while_idle_asks_first(stage: Stage) -> None:
    term = await stage.manager("m1").campaign()
    waiting = stage.campaign(stage.manager("m2"))
    await stage.pass_time(1)
    stage.time.freeze(TTL)
    await stage.time.advance(0)
    assert term.lost.is_set()
    await stage.pass_time(TTL + 1)
    assert waiting.done()


class BrokenStore(FaultyStore):
    async def keep_alive(self, lease: int) -> float:
        raise ZeroDivisionError


async def test_an_error_of_the_program_ends_the_term(stage: Stage) -> None:
    term = await stage.manager("m1", BrokenStore(stage.store)).campaign()
    await stage.pass_time(1)
    assert term.lost.is_set()


async def test_a_lost_leader_campaigns_again(stage: Stage) -> None:
    election = stage.manager("m1")
    term = await election.campaign()
    with pytest.raises(RuntimeError, match="leads already"):
        await election.campaign()
    await delete(stage.store, LEADER_KEY)
    await stage.time.settle()
    again = await election.campaign()
    assert again.create_revision > term.create_revision
    assert not again.lost.is_set() and term.lost.is_set()


async def test_an_earlier_incarnation_is_replaced_without_waiting_and_notices(stage: Stage) -> None:
    old = await stage.manager("m1").campaign()
    new = await stage.manager("m1").campaign()
    await stage.time.settle()
    assert old.lost.is_set() and not new.lost.is_set()
    await stage.pass_time(20)
    assert not new.lost.is_set()


@pytest.mark.parametrize("faults", [[LOST_AFTER], [LOST_BEFORE], [DOWN, LOST_BEFORE, LOST_AFTER], [LATE]])
async def test_an_unknown_outcome_leaves_one_leader_and_no_stray_key(stage: Stage, faults: list[str]) -> None:
    campaign = stage.campaign(stage.manager("m1", FaultyStore(stage.store, list(faults))))
    await stage.pass_time(5)
    entry = await stage.store.get(LEADER_KEY)
    assert campaign.done() and entry is not None
    assert entry.create_revision == campaign.result().create_revision
    assert entry.lease == campaign.result().lease
    assert stage.store.leases() == {entry.lease}
    await stage.pass_time(20)
    assert not campaign.result().lost.is_set()


class RivalStore(FaultyStore):
    """Somebody else wins, and the answer that says so is lost."""

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        await put(self.inner, LEADER_KEY, pb.Leader(manager_id="rival").SerializeToString())
        raise OutcomeUnknown("lost, says the test")


async def test_an_unknown_outcome_is_not_taken_for_a_victory(stage: Stage) -> None:
    campaign = stage.campaign(stage.manager("m1", RivalStore(stage.store)))
    await stage.pass_time(5)
    assert not campaign.done() and await stage.who() == "rival"
    assert not stage.store.leases()


async def test_campaigning_waits_for_the_store(stage: Stage) -> None:
    stage.store.set_available(False)
    campaign = stage.campaign(stage.manager("m1"))
    await stage.pass_time(5)
    assert not campaign.done()
    stage.store.set_available(True)
    await stage.pass_time(1)
    assert campaign.done()


async def test_compaction_does_not_disturb_a_candidate(stage: Stage) -> None:
    await stage.manager("m1").campaign()
    waiting = stage.campaign(stage.manager("m2"))
    await stage.pass_time(1)
    await stage.store.compact(await put(stage.store, "/x"))
    await stage.pass_time(1)
    await stage.elections[0].resign()
    await stage.pass_time(0.1)
    assert waiting.done()


async def test_resigning_without_a_store_does_not_raise(stage: Stage) -> None:
    election = stage.manager("m1")
    term = await election.campaign()
    stage.store.set_available(False)
    await election.resign()
    assert term.lost.is_set()
    stage.store.set_available(True)


def test_a_margin_must_fit_the_lease() -> None:
    with pytest.raises(ValueError, match="margin"):
        Election(MemoryStore(), pb.Leader(), ttl=2, margin=2)
