"""Node numbers, 1…: VTEP MACs and flow marks derive from them, so a number is never given twice.

The high-water mark is the highest of: the numbers of all nodes, of all blocks (a removed node's blocks stay while tasks
hold addresses in them), and the `last_node_number` of the networks, which removing a node raises.
"""

from __future__ import annotations

from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.allocator.networks import DEFAULT_NETWORK
from pyswarm_manager.allocator.ranges import parse_range, to_int
from pyswarm_manager.plan import Delete, Put, World, Write, changed

HIGHEST = 65_535  # conntrack zones, marks and the last bytes of MACs have 16 bits for it


def number(world: World, given: int = 0) -> int:
    """The next node's number; `given`: the highest that the world may not show yet. PreconditionFailed when all were
    given."""
    highest = max(
        (
            given,
            *(node.number for node in world.nodes.values()),
            *(network.last_node_number for network in world.networks.values()),
            *(block.node_number for network in world.networks.values() for block in network.blocks),
        )
    )
    if highest >= HIGHEST:
        raise PreconditionFailed(
            f"All {HIGHEST} node numbers of this cluster were given: a number is not used twice, so no node can join."
        )
    return highest + 1


def forget(world: World, node: pb.Node) -> tuple[Write, ...]:
    """The writes, of one transaction, that remove a node and remember its number."""
    keeper = next(
        (network for network in world.networks.values() if network.spec.name == DEFAULT_NETWORK),
        min(world.networks.values(), key=lambda network: network.id, default=None),
    )
    if keeper is None or keeper.last_node_number >= node.number:
        return (Delete(node),)
    copy = changed(keeper)
    copy.last_node_number = node.number
    return Delete(node), Put(copy)


def underlay_conflict(world: World, address: str) -> str:
    """A sentence when a node with this underlay address would lie inside one of the networks; else ""."""
    value = to_int(address)
    for network in world.networks.values():
        if value in parse_range(network.spec.subnet):
            return (
                f"The node's address {address} lies inside the range {network.spec.subnet} of network "
                f"{network.spec.name}: give the node another address, or make that network anew with another --subnet."
            )
    return ""
