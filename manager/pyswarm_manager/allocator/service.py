"""VIPs: one for a service on each network it is attached to, kept as long as anything of it may use that network."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.ranges import Range, parse_range, to_int, to_text
from pyswarm_manager.plan import Plan, Put, World, changed
from pyswarm_manager.tasks import is_terminal

RETRY_VIP = 10.0  # seconds between two looks at a range that is used up

# A rollout in one of these may still go back to the spec before.
_OPEN = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK, pb.ROLLOUT_STATE_PAUSED)


def plan(world: World, service_id: str, now: float, given: Collection[pb.Service] = ()) -> Plan:
    """Gives the VIPs that are missing, takes back those that nothing needs any more. `given`: services with VIPs that
    the world may not show yet.

    A VIP on a network that the spec has left goes only when no task of the service is on that network and no rollout
    may return to the spec before: a failed update ends with the addresses it began with. A service that is being
    removed keeps its VIPs until its object goes: they go with it.
    """
    service = world.services.get(service_id)
    if service is None or service.removing:
        return Plan()
    attached = _attached(service.spec)
    have = {vip.network_id: vip.address for vip in service.vips}
    missing = [network_id for network_id in attached if network_id not in have]
    idle = set(have).difference(attached)
    if idle:
        idle -= _still_needed(world, service)
    if not missing and not idle:
        return Plan()
    notes = [f"{service.spec.name}: VIP {have[network_id]} is free again" for network_id in sorted(idle)]
    wake_at: float | None = None
    for network_id in missing:
        network = world.networks.get(network_id)
        address = next_vip(world, network, given) if network is not None else None
        if address is None:
            wake_at = now + RETRY_VIP  # another service's VIP may be free by then
        if network is None:
            notes.append(f"{service.spec.name}: no VIP on network {network_id}, which does not exist")
        elif address is None:
            notes.append(
                f"{service.spec.name}: no VIP: the range {network.vip_range} of network {network.spec.name} is used up"
            )
        else:
            have[network_id] = address
            notes.append(f"{service.spec.name}: VIP {address} on network {network.spec.name}")
    kept = [network_id for network_id in have if network_id not in idle]
    # In the order of the spec's networks, then those kept for tasks on their way out.
    order = {network_id: position for position, network_id in enumerate(attached)}
    kept.sort(key=lambda network_id: (order.get(network_id, len(order)), network_id))
    vips = [pb.Vip(network_id=network_id, address=have[network_id]) for network_id in kept]
    if vips == list(service.vips):
        return Plan(wake_at=wake_at, notes=tuple(notes))
    copy = changed(service)
    del copy.vips[:]
    copy.vips.extend(vips)
    return Plan(steps=((Put(copy),),), wake_at=wake_at, notes=tuple(notes))


def missing_vips(world: World, service: pb.Service) -> dict[str, bool]:
    """Networks on which the service has no VIP and should have one → whether one can be had."""
    have = {vip.network_id for vip in service.vips}
    missing = [network_id for network_id in _attached(service.spec) if network_id not in have]
    if not missing:
        return {}
    networks = {network_id: world.networks.get(network_id) for network_id in missing}
    return {
        network_id: network is not None and next_vip(world, network) is not None
        for network_id, network in networks.items()
    }


def may_go_back(world: World, service: pb.Service) -> bool:
    """Its rollout is not over, or paused: it may end with the spec before."""
    rollout = world.rollouts.get(service.rollout_id)
    return rollout is not None and rollout.state in _OPEN and service.HasField("previous_spec")


def next_vip(world: World, network: pb.Network, given: Collection[pb.Service] = ()) -> str | None:
    """The next free address after that of the service created last, wrapping around: oldest free first, as for tasks.

    The range's first address is never given. O(services), and so asked only when a VIP is missing.
    """
    vips = parse_range(network.vip_range)
    used: set[int] = set()
    latest, last = (-1.0, ""), vips.first
    for service in itertools.chain(world.services.values(), given):
        for vip in service.vips:
            if vip.network_id == network.id:
                address = to_int(vip.address)
                used.add(address)
                if (service.created_at, service.id) > latest:
                    latest, last = (service.created_at, service.id), address
    found = _after(vips, last, used)
    return to_text(found) if found is not None else None


def _after(vips: Range, last: int, used: Iterable[int]) -> int | None:
    taken = set(used)
    if len(taken) >= vips.size - 1:
        return None
    for step in range(1, vips.size + 1):
        address = vips.first + (last - vips.first + step) % vips.size
        if address != vips.first and address not in taken:
            return address
    return None


def _attached(service: spec.ServiceSpec) -> list[str]:
    """Networks on which a service of this spec has a VIP."""
    if service.endpoint_mode != spec.ENDPOINT_MODE_VIP:
        return []
    return [attachment.network_id for attachment in service.task.networks]


def _still_needed(world: World, service: pb.Service) -> set[str]:
    """Networks that the spec is no longer attached to, but on which the VIP is kept."""
    needed: set[str] = set()
    if may_go_back(world, service):
        needed.update(_attached(service.previous_spec))
    for task in world.tasks_of_service(service.id):
        if not is_terminal(task):
            needed.update(attachment.network_id for attachment in task.spec.networks)
    return needed
