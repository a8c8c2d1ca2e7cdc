"""A leader whose view of the store stands still: its writes arrive, and it does not see them."""

from __future__ import annotations

from tests.support.manager import Cluster, eventually
from tests.support.standing import StandingStore

from pyswarm_core import kinds
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher.nodes import Limits
from pyswarm_manager.dispatcher.term import Timing


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


async def test_nodes_have_their_grace_from_when_they_can_come() -> None:
    """Not from an election after which the leader had to wait for its view of the store."""
    async with Cluster.make() as cluster:
        await cluster.put(pb.Node(id="n1", number=1, state=pb.NODE_STATE_READY, serving=True))
        states = [pb.NODE_STATE_READY]
        cluster.world.subscribe(lambda changes, revision: states.append(cluster.world.nodes["n1"].state))
        await cluster.lead(Timing(heartbeat_period=0.05, limits=Limits(down_after=0.5), grace=0.5), opens_after=0.6)
        async with cluster.agent("n1").running():
            await eventually(lambda: cluster.term and cluster.term.sessions and cluster.acknowledged)
        assert set(states) == {pb.NODE_STATE_READY}
