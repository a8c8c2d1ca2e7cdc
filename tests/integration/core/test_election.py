"""Elections and fenced writes on a real cluster whose members die and freeze."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.etcd import EtcdProcess, etcd_cluster, needs_etcd
from tests.support.stores import batches, delete, eventually, flat

from pyswarm_core import kinds, tls
from pyswarm_core.errors import Conflict, Deposed, OutcomeUnknown, StoreUnavailable
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import EventKind
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.leader import Election
from pyswarm_manager.plan import Plan, Put
from pyswarm_manager.writer import Writer

pytestmark = needs_etcd


class Manager:
    """Leads when it can, and raises one counter as long as it does; it looks at `lost` only after each write."""

    def __init__(self, name: str, store: EtcdStore) -> None:
        self.name = name
        self.store = store
        self.election = Election(store, pb.Leader(manager_id=name), ttl=3)
        self.terms: list[int] = []
        self.writes: list[tuple[int, int]] = []  # (term, revision)
        self.deposed = 0
        self.stubborn = False  # goes on writing after its term is lost, until the store itself refuses

    async def run(self) -> None:
        try:
            while True:
                term = await self.election.campaign()
                self.terms.append(term.create_revision)
                writer = Writer(self.store, term.fence)
                while self.stubborn or not term.lost.is_set():
                    try:
                        await self._raise_counter(writer, term.create_revision)
                    except Deposed:
                        self.deposed += 1
                        break
                    except (Conflict, StoreUnavailable, OutcomeUnknown):
                        continue
                term.lost.set()
        finally:
            await self.election.resign()

    async def _raise_counter(self, writer: Writer, term: int) -> None:
        entry = await self.store.get(kinds.key("service", "counter"))
        counter = pb.Service(id="counter")
        if entry:
            counter = pb.Service.FromString(entry.value)
            counter.version = entry.mod_revision
        counter.spec_version += 1
        counter.rollout_id = f"{self.name}/{term}"
        self.writes.append((term, await writer.apply(Plan(((Put(counter),),)))))


async def test_no_write_outside_of_a_term_while_members_die_and_leaders_are_deposed(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    authority = tls.Authority.create()
    with etcd_cluster(tmp_path, authority=authority) as members:
        async with AsyncExitStack() as stack:
            managers = []
            for n in range(3):
                identity = authority.issue(common_name=f"m{n}", role="manager")
                store = EtcdStore.connect([m.endpoint for m in members[n:] + members[:n]], identity)
                stack.push_async_callback(store.close)
                managers.append(Manager(f"m{n}", store))
            managers[0].stubborn = True
            store = managers[0].store
            running = [asyncio.create_task(m.run()) for m in managers]
            try:
                await _disturb(members, managers, store, rng)
            finally:
                for task in running:
                    task.cancel()
                ended = await asyncio.gather(*running, return_exceptions=True)
            assert all(isinstance(e, asyncio.CancelledError) for e in ended), ended
            await _check(managers, store)


async def _wrote(managers: list[Manager], more: int) -> None:
    wanted = sum(len(m.writes) for m in managers) + more
    await eventually(lambda: sum(len(m.writes) for m in managers) >= wanted, timeout=60)


async def _disturb(members: list[EtcdProcess], managers: list[Manager], store: EtcdStore, rng: random.Random) -> None:
    await _wrote(managers, 20)
    for number, member in enumerate(members):
        if number % 2:
            await asyncio.to_thread(member.kill)
            await _wrote(managers, 20)
            member.start(wait=False)
            await asyncio.to_thread(member.wait_ready)
        else:
            member.pause()
            try:
                await asyncio.sleep(rng.uniform(0.5, 2))
            finally:
                member.resume()
        await _wrote(managers, 20)
        await delete(store, kinds.LEADER_KEY)  # deposes whoever leads
        await _wrote(managers, 20)


async def _check(managers: list[Manager], store: EtcdStore) -> None:
    """By etcd's own history: each write was made by the manager that led at its revision."""
    end = (await store.list(kinds.PREFIX)).revision
    leader: tuple[str, int] | None = None
    value = 0
    seen = 0
    for event in flat(await batches(store, kinds.PREFIX, 1, await _events(store, end))):
        entry = event.entry
        if entry.key == kinds.LEADER_KEY:
            leader = None
            if event.kind is EventKind.PUT:
                leader = (pb.Leader.FromString(entry.value).manager_id, entry.create_revision)
        elif entry.key == kinds.key("service", "counter"):
            counter = pb.Service.FromString(entry.value)
            name, term = counter.rollout_id.split("/")
            assert leader == (name, int(term)), f"{counter.rollout_id} wrote while {leader} led"
            assert counter.spec_version == value + 1
            value = counter.spec_version
            seen += 1
    told = [revision for m in managers for _, revision in m.writes]
    assert len(set(told)) == len(told) <= seen
    assert sum(len(m.terms) for m in managers) >= 4
    assert len({t for m in managers for t in m.terms}) == sum(len(m.terms) for m in managers)


async def _events(store: EtcdStore, end: int) -> int:
    count = 0
    async for batch in store.watch(kinds.PREFIX, from_revision=1):
        count += sum(e.entry.mod_revision <= end for e in batch.events)
        if batch.revision >= end:
            break
    return count


async def test_the_next_leader_comes_within_the_lease(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        stores = [EtcdStore.connect([etcd.endpoint], None) for _ in range(2)]
        elections = [Election(s, pb.Leader(manager_id=f"m{n}"), ttl=2) for n, s in enumerate(stores)]
        first = await elections[0].campaign()
        second = asyncio.create_task(elections[1].campaign())
        try:
            await asyncio.sleep(3)
            assert not second.done() and not first.lost.is_set()
            await stores[0].close()  # dies without a word
            async with asyncio.timeout(8):
                await first.lost.wait()
                term = await second
            assert term.create_revision > first.create_revision
        finally:
            second.cancel()
            for election in elections:
                await election.resign()
            for store in stores:
                await store.close()
