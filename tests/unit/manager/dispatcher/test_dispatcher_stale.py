"""A leader whose view of the store stands still: its writes arrive, and it does not see them."""

from __future__ import annotations

from tests.support.manager import Cluster, eventually
from tests.support.standing import StandingStore

from pyswarm_core import kinds
from pyswarm_core.v1 import objects_pb2 as pb


async def test_two_nodes_that_register_meanwhile_get_two_numbers() -> None:
    store = StandingStore()
    async with Cluster.make(store=store) as cluster:
        await cluster.lead(catch_up=cluster.impatient)
        store.flows.clear()

        def numbers() -> list[int]:
            entries = store.list_now(kinds.PREFIX + "node/").entries
            return sorted(pb.Node.FromString(entry.value).number for entry in entries)

        async with cluster.agent("n1").running(), cluster.agent("n2").running():
            await eventually(lambda: len(numbers()) == 2)
            assert len(set(numbers())) == 2
            store.flows.set()
            await eventually(lambda: len(cluster.world.nodes) == 2)
