"""The keeper on an etcd of tables: what it does, in which order, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest
from tests.support.watched import WatchedWorld

from pyswarm_core.errors import PreconditionFailed, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.cluster import Member
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.clock import SystemClock
from pyswarm_manager.members.follow import endpoints_of
from pyswarm_manager.members.keeper import Keeper

MANAGER, WORKER = spec.NODE_ROLE_MANAGER, spec.NODE_ROLE_WORKER


class FakeEtcd:
    def __init__(self, *names: str) -> None:
        self.table = [Member(i, name, (url(name),), (f"https://{name}:2379",), False) for i, name in enumerate(names)]
        self.dead: set[int] = set()
        self.behind: set[int] = set()  # learners that have not caught up
        self.calls: list[str] = []

    async def members(self) -> Sequence[Member]:
        return tuple(self.table)

    async def answering(self, members: Sequence[Member]) -> Collection[int]:
        return {m.id for m in members if m.name and m.id not in self.dead}

    async def add(self, peer_url: str) -> None:
        self.calls.append(f"add {peer_url}")
        self.table.append(Member(100 + len(self.calls), "", (peer_url,), (), True))

    async def promote(self, member_id: int) -> None:
        if member_id in self.behind:
            raise PreconditionFailed("etcd cannot do it: not caught up")
        self.calls.append(f"promote {member_id}")
        self._replace(member_id, is_learner=False)

    async def remove(self, member: Member) -> None:
        self.calls.append(f"remove {member.name}")
        self.table.remove(member)

    def starts(self, name: str) -> None:
        """Of the last one that was added."""
        self._replace(self.table[-1].id, name=name)

    def _replace(self, member_id: int, **fields: object) -> None:
        import dataclasses

        self.table = [dataclasses.replace(m, **fields) if m.id == member_id else m for m in self.table]  # type: ignore[arg-type]


def url(name: str) -> str:
    return f"https://{name}:2380"


def world(**roles: spec.NodeRole.ValueType) -> WatchedWorld:
    made = WatchedWorld()
    for number, (node_id, role) in enumerate(roles.items(), 1):
        made.put(pb.Node(id=node_id, number=number, spec=spec.NodeSpec(role=role)))
    return made


async def look(keeper: Keeper, times: int = 1) -> None:
    for _ in range(times):
        await keeper._look()


async def test_a_learner_gets_its_vote_when_it_has_caught_up() -> None:
    etcd = FakeEtcd("a")
    keeper = Keeper(etcd, world(a=MANAGER, b=MANAGER), "a", lambda: True, SystemClock())
    assert await keeper.prepare("b", url("b")) == f"a={url('a')},b={url('b')}"
    assert await keeper.prepare("b", url("b")), "asked again, it is not added again"
    await look(keeper)
    assert etcd.calls == [f"add {url('b')}"], "it has not started yet"
    etcd.starts("b")
    etcd.behind = {m.id for m in etcd.table if m.is_learner}
    await look(keeper)
    etcd.behind = set()
    await look(keeper)
    assert [m.is_learner for m in etcd.table] == [False, False]


async def test_a_second_one_waits_for_the_first() -> None:
    etcd = FakeEtcd("a")
    keeper = Keeper(etcd, world(a=MANAGER), "a", lambda: True, SystemClock())
    await keeper.prepare("b", url("b"))
    with pytest.raises(StoreUnavailable, match="one at a time"):
        await keeper.prepare("c", url("c"))


async def test_only_the_leader_changes_anything() -> None:
    etcd = FakeEtcd("a", "b")
    keeper = Keeper(etcd, world(a=MANAGER, b=WORKER), "a", lambda: False, SystemClock())
    with pytest.raises(StoreUnavailable, match="does not lead"):
        await keeper.prepare("c", url("c"))
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)
    running.cancel()
    assert not etcd.calls


async def test_one_without_its_data_is_removed_and_added_again() -> None:
    etcd = FakeEtcd("a", "b", "c")
    keeper = Keeper(etcd, world(a=MANAGER, b=MANAGER, c=MANAGER), "a", lambda: True, SystemClock())
    with pytest.raises(PreconditionFailed, match="runs already"):
        await keeper.prepare("c", url("c"))
    etcd.dead = {2}
    initial = await keeper.prepare("c", url("c"))
    assert etcd.calls == ["remove c", f"add {url('c')}"]
    assert initial.endswith(f"c={url('c')}")


async def test_it_is_not_removed_where_that_costs_the_majority() -> None:
    etcd = FakeEtcd("a", "b", "c")
    etcd.dead = {1, 2}
    keeper = Keeper(etcd, world(a=MANAGER, b=MANAGER, c=MANAGER), "a", lambda: True, SystemClock())
    with pytest.raises(PyswarmError, match="no majority"):
        await keeper.prepare("c", url("c"))
    assert not etcd.calls


async def test_those_of_demoted_and_removed_nodes_go_one_by_one() -> None:
    etcd = FakeEtcd("a", "b", "c", "d")
    held = world(a=MANAGER, b=WORKER, c=MANAGER)
    held.put(pb.RemovedNode(id="d"))
    keeper = Keeper(etcd, held, "a", lambda: True, SystemClock())
    assert await keeper.has("b")
    await look(keeper)
    assert len(etcd.calls) == 1
    await look(keeper, 3)
    assert sorted(etcd.calls) == ["remove b", "remove d"]


async def test_refusals_count_what_is_on_its_way_out() -> None:
    etcd = FakeEtcd("a", "b")
    keeper = Keeper(etcd, world(a=MANAGER, b=WORKER), "a", lambda: True, SystemClock())
    assert "last member" in await keeper.refuse("a")
    assert await keeper.refuse("nobody") == ""


def test_the_own_member_is_asked_first_and_learners_never() -> None:
    table = [*FakeEtcd("10.0.0.2", "10.0.0.1", "10.0.0.3").table]
    table.append(Member(9, "10.0.0.4", (), ("https://10.0.0.4:2379",), True))
    assert endpoints_of(table, "10.0.0.3") == ("10.0.0.3:2379", "10.0.0.1:2379", "10.0.0.2:2379")
