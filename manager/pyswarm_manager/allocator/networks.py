"""Subnets, VNIs and VIP ranges of networks."""

from __future__ import annotations

from pyswarm_core.errors import AlreadyExists, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.ranges import (
    LARGEST_PREFIX,
    SMALLEST_PREFIX,
    Range,
    layout,
    parse_range,
    to_int,
)
from pyswarm_manager.plan import World

DEFAULT_NETWORK = "default"
POOL = parse_range("10.128.0.0/10")  # unless the cluster was made with another
POOL_STEP = 1 << 16  # a pool is handed out by /16, and one that is small in sixteenths
FIRST_VNI = 4097
LAST_VNI = (1 << 24) - 1
# What no network may be made of, and why.
_RESERVED = (
    (parse_range("0.0.0.0/8"), "is not routable"),
    (parse_range("127.0.0.0/8"), "is every host's loopback"),
    (parse_range("169.254.0.0/16"), "is link-local (tasks reach DNS there)"),
    (parse_range("224.0.0.0/3"), "is for multicast or reserved"),
)


def parse_pool(cidr: str) -> Range:
    """What networks get their ranges from. InvalidInput: malformed, unusable, or with room for less than two."""
    pool = parse_range(cidr)
    if not SMALLEST_PREFIX <= pool.prefix <= LARGEST_PREFIX - 4:
        raise InvalidInput(
            f"The address pool {cidr} cannot be used: it must be between a /{SMALLEST_PREFIX} and a "
            f"/{LARGEST_PREFIX - 4}, for sixteen networks or more."
        )
    for reserved, why in _RESERVED:
        if pool.overlaps(reserved):
            raise InvalidInput(f"The address pool {cidr} cannot be used: {reserved.cidr} {why}. Use a private range.")
    return pool


def admit(world: World, wanted: spec.NetworkSpec, network_id: str, now: float, pool: Range = POOL) -> pb.Network:
    """The complete network. InvalidInput: a malformed or unusable subnet. AlreadyExists: it overlaps a network or the
    underlay. PreconditionFailed: the pool or the VNIs are used up. The name was checked before (`api.admission`)."""
    subnet = _given(world, wanted.subnet) if wanted.subnet else _pick(world, pool)
    complete = spec.NetworkSpec()
    complete.CopyFrom(wanted)
    complete.subnet = subnet.cidr
    return pb.Network(
        id=network_id,
        created_at=now,
        spec=complete,
        vni=_vni(world),
        vip_range=layout(subnet.cidr).vips.cidr,
    )


def default_network(world: World, network_id: str, now: float, pool: Range = POOL) -> pb.Network:
    """The network `default`, which every service joins unless told otherwise: made once, when a cluster starts, of the
    pool's first part that is not the underlay's."""
    return admit(world, spec.NetworkSpec(name=DEFAULT_NETWORK), network_id, now, pool)


def _given(world: World, cidr: str) -> Range:
    subnet = parse_range(cidr)
    if not SMALLEST_PREFIX <= subnet.prefix <= LARGEST_PREFIX:
        raise InvalidInput(
            f"Subnet {cidr} cannot be used: it must be between a /{SMALLEST_PREFIX} and a /{LARGEST_PREFIX}, to have "
            "room for service addresses and a block for each node."
        )
    for reserved, why in _RESERVED:
        if subnet.overlaps(reserved):
            raise InvalidInput(f"Subnet {cidr} cannot be used: {reserved.cidr} {why}. Use a private range.")
    taken = _taken_by(world, subnet)
    if taken:
        raise AlreadyExists(f"Subnet {cidr} overlaps {taken}: choose another one, or leave --subnet out.")
    return subnet


def _pick(world: World, pool: Range) -> Range:
    """The next free part of the pool after that of the network made last, wrapping around, so that a range whose
    network has just gone is not used again while a slow node may still have routes for it."""
    size = min(POOL_STEP, pool.size // 16)
    count = pool.size // size
    latest, last = (-1.0, ""), -1
    for network in world.networks.values():
        first = parse_range(network.spec.subnet).first
        if first in pool and (network.created_at, network.id) > latest:
            latest, last = (network.created_at, network.id), (first - pool.first) // size
    for step in range(1, count + 1):
        candidate = Range(pool.first + (last + step) % count * size, size)
        if not _taken_by(world, candidate):
            return candidate
    raise PreconditionFailed(
        f"All {count} ranges of the address pool {pool.cidr} are in use: name a range outside of it with --subnet, or "
        "remove a network that no service uses."
    )


def _taken_by(world: World, subnet: Range) -> str:
    """What of the cluster lies in this range, for a message; "" when nothing does."""
    for network in world.networks.values():
        if subnet.overlaps(parse_range(network.spec.subnet)):
            return f"network {network.spec.name} ({network.spec.subnet})"
    for node in world.nodes.values():
        if node.address and to_int(node.address) in subnet:
            return f"the address {node.address} of node {node.description.hostname or node.id}"
    return ""


def _vni(world: World) -> int:
    """One above the highest in use; the lowest free one when the highest possible is in use."""
    used = {network.vni for network in world.networks.values()}
    following = max(used, default=FIRST_VNI - 1) + 1
    if following <= LAST_VNI:
        return max(following, FIRST_VNI)
    free = next((vni for vni in range(FIRST_VNI, LAST_VNI + 1) if vni not in used), None)
    if free is None:
        raise PreconditionFailed("All VXLAN ids are in use: remove a network that no service uses.")
    return free
