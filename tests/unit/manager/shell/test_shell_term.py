"""A whole term of leadership, on a store in memory."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.support.manager import Cluster
from tests.unit.manager.dispatcher.build import service

from pyswarm_core.errors import StoreUnavailable
from pyswarm_manager import planners
from pyswarm_manager.allocator.networks import default_network
from pyswarm_manager.leader import Leadership
from pyswarm_manager.settings import Settings
from pyswarm_manager.term import LeaderTerm

SETTINGS = Settings(manager_id="m", advertise="10.0.0.1:2377", etcd_endpoints=("10.0.0.1:2379",))


@pytest.mark.parametrize("seen", [0, 1])
async def test_a_leader_that_does_not_see_what_is_stored_gives_up_its_term(seen: int) -> None:
    """`seen`: how often its view catches up before it stands still for ever."""
    async with Cluster.make(serve=False) as cluster:
        await cluster.lead()
        await cluster.put(default_network(cluster.world, "net", 1.0), service("web"))
        waits, opened = 0, 0

        async def catch_up(revision: int) -> None:
            nonlocal waits
            waits += 1
            if waits > seen:
                await asyncio.Event().wait()

        async def open_() -> None:
            nonlocal opened
            opened += 1

        term = LeaderTerm(
            Leadership(cluster.leader_revision, 0),
            cluster.store,
            cluster.world,
            catch_up,
            planners.real(),
            SETTINGS,
            cluster.clock,
            random.Random(1),
            catch_up_within=0.05,
        )
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(term.run(open_), 10)
        assert opened == seen, "nobody is let in before the world is there"
