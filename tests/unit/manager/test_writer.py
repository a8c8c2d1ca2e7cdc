from __future__ import annotations

import pytest
from tests.support.faulty import DOWN, LATE, LOST_AFTER, LOST_BEFORE, FaultyStore
from tests.support.stores import delete, put

from pyswarm_core import kinds
from pyswarm_core.errors import Conflict, Deposed, OutcomeUnknown, StoreUnavailable
from pyswarm_core.store.base import Compare, Field
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.leader import Election, Leadership
from pyswarm_manager.plan import Delete, Plan, Put, Write
from pyswarm_manager.writer import Writer


def task(name: str, version: int = 0, service: str = "s") -> pb.Task:
    return pb.Task(id=name, version=version, service_id=service)


def plan(*steps: list[Write]) -> Plan:
    return Plan(tuple(tuple(step) for step in steps))


async def stored(store: MemoryStore, name: str) -> pb.Task | None:
    entry = await store.get(kinds.key("task", name))
    if entry is None:
        return None
    message = kinds.decode("task", entry.value, entry.mod_revision)
    assert isinstance(message, pb.Task)
    return message


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(lambda: 0.0)


@pytest.fixture
async def fence(store: MemoryStore) -> Compare:
    return Leadership(await put(store, kinds.LEADER_KEY, "m1"), 0).fence


async def test_creates_replaces_and_deletes(store: MemoryStore, fence: Compare) -> None:
    writer = Writer(store, fence)
    first = await writer.apply(plan([Put(task("a")), Put(task("b"))]))
    a = await stored(store, "a")
    assert a is not None and a.version == first
    second = await writer.apply(plan([Put(task("a", first, "changed")), Delete(task("b", first))]))
    a = await stored(store, "a")
    assert a is not None and (a.version, a.service_id) == (second, "changed")
    assert await stored(store, "b") is None
    entry = await store.get(kinds.key("task", "a"))
    assert entry is not None and pb.Task.FromString(entry.value).version == 0


async def test_an_empty_plan_writes_nothing(store: MemoryStore, fence: Compare) -> None:
    before = store.revision
    assert await Writer(store, fence).apply(Plan(((), ()))) == 0
    assert store.revision == before


async def test_small_steps_share_a_transaction_and_large_ones_do_not(store: MemoryStore, fence: Compare) -> None:
    faulty = FaultyStore(store)
    writer = Writer(faulty, fence)
    await writer.apply(plan(*([Put(task(f"a{n}"))] for n in range(127))))
    assert faulty.txns == 1
    await writer.apply(plan(*([Put(task(f"b{n}"))] for n in range(128))))
    assert faulty.txns == 3
    await writer.apply(plan(*([Put(task(f"{c}{n}")) for n in range(50)] for c in "cdefg")))
    assert faulty.txns == 6  # 100, 100, 50: no step is torn
    with pytest.raises(ValueError, match="at most 127"):
        await writer.apply(plan([Put(task(f"h{n}")) for n in range(128)]))
    with pytest.raises(ValueError, match="twice"):
        await writer.apply(plan([Put(task("i")), Delete(task("i"))]))
    await Writer(faulty, None).apply(plan([Put(task(f"j{n}")) for n in range(128)]))
    assert faulty.txns == 7


async def test_large_values_are_spread_over_transactions(store: MemoryStore, fence: Compare) -> None:
    faulty = FaultyStore(store)
    await Writer(faulty, fence).apply(plan(*([Put(task(f"a{n}", service="x" * 300_000))] for n in range(7))))
    assert faulty.txns == 3


async def test_a_later_step_builds_on_an_earlier_one(store: MemoryStore, fence: Compare) -> None:
    writer = Writer(store, fence)
    version = await writer.apply(plan([Put(task("a"))]))
    steps = plan([Put(task("a", version, "1"))], [Put(task("a", version, "2")), Put(task("b"))], [Delete(task("b"))])
    last = await writer.apply(steps)
    a = await stored(store, "a")
    assert a is not None and a.service_id == "2"
    assert await stored(store, "b") is None
    assert last == store.revision == version + 3


async def test_a_stale_or_missing_object_is_a_conflict_and_nothing_is_written(
    store: MemoryStore, fence: Compare
) -> None:
    writer = Writer(store, fence)
    version = await writer.apply(plan([Put(task("a"))]))
    await writer.apply(plan([Put(task("a", version, "newer"))]))
    before = store.revision
    with pytest.raises(Conflict, match=f"task/a was expected at version {version} and is at version {version + 1}"):
        await writer.apply(plan([Put(task("b")), Put(task("a", version, "old"))]))
    with pytest.raises(Conflict, match="task/a was expected not to exist"):
        await writer.apply(plan([Put(task("a"))]))
    with pytest.raises(Conflict, match="task/c was expected at version 3 and is gone"):
        await writer.apply(plan([Delete(task("c", 3))]))
    assert store.revision == before


async def test_what_came_before_a_conflict_stays(store: MemoryStore, fence: Compare) -> None:
    writer = Writer(store, fence)
    many: list[Write] = [Put(task(f"a{n}")) for n in range(127)]
    with pytest.raises(Conflict):
        await writer.apply(plan(many, [Put(task("b", 99))], [Put(task("c"))]))
    assert await stored(store, "a126") is not None
    assert await stored(store, "c") is None


async def test_a_guard_that_does_not_hold_is_a_conflict(store: MemoryStore, fence: Compare) -> None:
    guard = Compare("/pyswarm/v1/names/web", Field.CREATE, 0)
    writer = Writer(store, fence)
    await writer.apply(plan([Put(task("a"))]), guards=[guard])
    await put(store, guard.key)
    with pytest.raises(Conflict, match="names/web has changed"):
        await writer.apply(plan([Put(task("b"))]), guards=[guard])
    assert await stored(store, "b") is None


async def test_a_deposed_leader_writes_nothing_even_if_the_same_manager_leads_again(store: MemoryStore) -> None:
    """Comparing the key's value would let the earlier incarnation write."""
    me = pb.Leader(manager_id="m1", address="10.0.0.1:2377")
    first, second = Election(store, me), Election(store, me)
    old = await first.campaign()
    before = Writer(store, old.fence)
    await before.apply(plan([Put(task("a"))]))
    new = await second.campaign()  # the same id: takes over without waiting
    try:
        assert new.create_revision > old.create_revision
        revision = store.revision
        with pytest.raises(Deposed):
            await before.apply(plan([Put(task("b"))]))
        with pytest.raises(Deposed):
            await before.apply(plan([Delete(task("a", 99))]))
        assert store.revision == revision
        await Writer(store, new.fence).apply(plan([Put(task("b"))]))
    finally:
        await first.resign()
        await second.resign()


async def test_nobody_leads(store: MemoryStore, fence: Compare) -> None:
    await delete(store, kinds.LEADER_KEY)
    with pytest.raises(Deposed):
        await Writer(store, fence).apply(plan([Put(task("a"))]))


@pytest.mark.parametrize("faults", [[LOST_AFTER], [LOST_BEFORE], [LOST_BEFORE, LOST_AFTER], [LOST_BEFORE] * 2, [LATE]])
async def test_an_unknown_outcome_becomes_known(store: MemoryStore, fence: Compare, faults: list[str]) -> None:
    version = await Writer(store, fence).apply(plan([Put(task("a")), Put(task("b"))]))
    faulty = FaultyStore(store, list(faults))
    revision = await Writer(faulty, fence).apply(plan([Put(task("a", version, "new")), Delete(task("b", version))]))
    a = await stored(store, "a")
    assert a is not None and (a.service_id, a.version) == ("new", revision)
    assert await stored(store, "b") is None
    assert store.revision == revision == version + 1  # once


async def test_an_unknown_deletion_becomes_known(store: MemoryStore, fence: Compare) -> None:
    version = await Writer(store, fence).apply(plan([Put(task("a"))]))
    revision = await Writer(FaultyStore(store, [LOST_AFTER]), fence).apply(plan([Delete(task("a", version))]))
    assert revision == store.revision == version + 1


async def test_an_unknown_outcome_that_somebody_built_upon_is_a_conflict(store: MemoryStore, fence: Compare) -> None:
    async def other_writer() -> None:
        await put(store, kinds.key("task", "a"), kinds.encode(task("a", service="other")))

    faulty = FaultyStore(store, [LOST_AFTER], after_txn=other_writer)
    with pytest.raises(Conflict):
        await Writer(faulty, fence).apply(plan([Put(task("a"))]))
    a = await stored(store, "a")
    assert a is not None and a.service_id == "other"


async def test_a_deposed_leader_with_an_unknown_outcome(store: MemoryStore, fence: Compare) -> None:
    await delete(store, kinds.LEADER_KEY)
    with pytest.raises(Deposed):
        await Writer(FaultyStore(store, [LOST_BEFORE]), fence).apply(plan([Put(task("a"))]))


@pytest.mark.parametrize(
    "faulty_args", [([LOST_BEFORE] * 3, False), ([LOST_AFTER, DOWN], True), ([LOST_BEFORE, DOWN], False)]
)
async def test_what_stays_unknown_is_said_to_be_unknown(
    store: MemoryStore, fence: Compare, faulty_args: tuple[list[str], bool]
) -> None:
    faults, reads_down = faulty_args
    with pytest.raises(OutcomeUnknown):
        await Writer(FaultyStore(store, list(faults), reads_down), fence).apply(plan([Put(task("a"))]))


async def test_an_outage_before_anything_is_an_outage(store: MemoryStore, fence: Compare) -> None:
    with pytest.raises(StoreUnavailable):
        await Writer(FaultyStore(store, [DOWN]), fence).apply(plan([Put(task("a"))]))
    assert await stored(store, "a") is None
