"""Networks are kept up: blocks follow their nodes, and a network that is being removed goes at last.

A node without a task in a network has no block there and needs none: what it sends into the network, as the entry to a
VIP or a published port, carries its underlay address.
"""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.allocator.addresses import Addresses, block_is_current
from pyswarm_manager.plan import World


def needs_upkeep(world: World) -> bool:
    """Something may have to change. Cheap: asked whenever the scheduler looks."""
    return any(network.removing or _is_stale(network, world) for network in world.networks.values())


def keep_up(world: World, addresses: Addresses) -> list[pb.Network]:
    """Changes blocks through `addresses`; returns the networks to delete. One that is being removed goes when no
    service is attached to it and no task holds an address in it."""
    for network in world.networks.values():
        if _is_stale(network, world):
            addresses.refresh(network.id)
    removing = [network for _, network in sorted(world.networks.items()) if network.removing]
    if not removing:
        return []
    held = addresses.held_networks().union(attached_networks(world))
    return [network for network in removing if network.id not in held]


def attached_networks(world: World) -> frozenset[str]:
    """Ids of the networks that services use, or hold a VIP in."""
    return frozenset(
        network_id
        for service in world.services.values()
        for network_id in (
            *(attachment.network_id for attachment in service.spec.task.networks),
            *(vip.network_id for vip in service.vips),
        )
    )


def _is_stale(network: pb.Network, world: World) -> bool:
    if network.removing:
        return False
    for block in network.blocks:
        node = world.nodes.get(block.node_id)
        if node is None or not block_is_current(block, node):
            return True
    return False
