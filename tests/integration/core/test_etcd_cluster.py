from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from tests.support.etcd import EtcdProcess, etcd_cluster, needs_etcd
from tests.support.stores import put

from pyswarm_core import tls
from pyswarm_core.errors import InvalidInput, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.cluster import Cluster
from pyswarm_core.etcd.store import EtcdStore

pytestmark = needs_etcd
T = TypeVar("T")


async def test_a_cluster_grows_from_one_to_three_and_shrinks_again(tmp_path: Path) -> None:
    authority = tls.Authority.create()

    def member(name: str) -> EtcdProcess:
        identity = authority.issue(common_name=name, role="etcd", addresses=["127.0.0.1"])
        return EtcdProcess(tmp_path, name=name, identity=identity, election_ms=1000)

    members = [member(f"etcd-{n}") for n in range(3)]
    identity = authority.issue(common_name="m1", role="manager")
    store = EtcdStore.connect([m.endpoint for m in members], identity)
    cluster = Cluster(store.client)
    try:
        members[0].start()
        await put(store, "/a", "kept")
        assert [(m.name, m.peer_urls, m.is_learner) for m in await cluster.members()] == [
            ("etcd-0", (members[0].peer_url,), False)
        ]
        for number in (1, 2):
            new = members[number]
            added = await _when_well(partial(cluster.add, [new.peer_url], learner=True))
            assert added.is_learner and added.name == ""
            new.initial_cluster = ",".join(f"{m.name}={m.peer_url}" for m in members[: number + 1])
            new.initial_state = "existing"
            new.start(wait=False)
            await _promote(cluster, added.id)
            await asyncio.to_thread(new.wait_ready)
        assert sorted(m.name for m in await cluster.members()) == ["etcd-0", "etcd-1", "etcd-2"]
        statuses = [await cluster.status(m.endpoint) for m in members]
        assert sum(s.is_leader for s in statuses) == 1
        assert {s.leader_id for s in statuses} == {s.member_id for s in statuses if s.is_leader}
        assert all(s.version and s.db_size >= s.db_size_in_use > 0 and not s.alarms for s in statuses)

        for status in [s for s in statuses if not s.is_leader]:
            await _when_well(partial(cluster.remove, status.member_id))
            await cluster.remove(status.member_id)  # again: no error
        (left,) = await cluster.members()
        assert left.id == statuses[0].leader_id
        entry = await store.get("/a")
        assert entry is not None and entry.value == b"kept"
    finally:
        await store.close()
        for process in members:
            process.__exit__()


async def _when_well(change: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(30):
        while True:
            try:
                return await change()
            except StoreUnavailable as error:  # etcd wants all members to have been well for five seconds
                assert "unhealthy cluster" in str(error)


async def _promote(cluster: Cluster, member_id: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await cluster.promote(member_id)
            except PyswarmError:  # not in sync yet
                await asyncio.sleep(0.1)


async def _without_leader(cluster: Cluster, endpoint: str) -> None:
    async with asyncio.timeout(20):
        while True:
            status = await cluster.status(endpoint)
            if not status.leader_id:
                assert not status.is_leader
                return
            await asyncio.sleep(0.1)


async def test_the_status_of_a_member_that_is_alone_or_gone(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) as members:
        store = EtcdStore.connect([m.endpoint for m in members], None, timeout=1)
        cluster = Cluster(store.client)
        try:
            for member in members[1:]:
                await asyncio.to_thread(member.kill)

            await _without_leader(cluster, members[0].endpoint)
            with pytest.raises(StoreUnavailable):
                await cluster.status(members[1].endpoint)
            with pytest.raises(InvalidInput, match="use one of"):
                await cluster.status("127.0.0.1:1")
        finally:
            await store.close()
