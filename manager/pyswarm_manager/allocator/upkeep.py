"""Networks are kept up: blocks follow nodes, entry hosts get theirs, and a network that is being removed goes at last.

**Entry blocks.** A published port answers on every host, also one that runs no task of the service, and there also on
localhost. What such a host sends into the network carries the host's own overlay address, so it needs a block: every
node that is not down gets one in each network of a service that publishes ports in ingress mode.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.addresses import Addresses, block_is_current
from pyswarm_manager.plan import World


def needs_upkeep(world: World) -> bool:
    """Something may have to change. Cheap: asked whenever the scheduler looks."""
    if any(network.removing for network in world.networks.values()):
        return True
    if any(_is_stale(network, world) for network in world.networks.values()):
        return True
    return next(_missing(world), None) is not None


def keep_up(world: World, addresses: Addresses) -> list[pb.Network]:
    """Changes blocks through `addresses`; returns the networks to delete. One that is being removed goes when no
    service is attached to it and no task holds an address in it."""
    for network in world.networks.values():
        if _is_stale(network, world):
            addresses.refresh(network.id)
    for network_id, node in _missing(world):
        addresses.ensure_block(network_id, node)
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


def _missing(world: World) -> Iterator[tuple[str, pb.Node]]:
    """(network id, node) of entry blocks that are not there, in the order of ids."""
    published = sorted(
        {
            attachment.network_id
            for service in world.services.values()
            if not service.removing and any(port.mode == spec.PUBLISH_MODE_INGRESS for port in service.spec.ports)
            for attachment in service.spec.task.networks
        }
    )
    nodes = [node for _, node in sorted(world.nodes.items()) if node.number and node.state != pb.NODE_STATE_DOWN]
    for network_id in published:
        network = world.networks.get(network_id)
        if network is None or network.removing:
            continue
        have = {block.node_id for block in network.blocks}
        for node in nodes:
            if node.id not in have:
                yield network_id, node
