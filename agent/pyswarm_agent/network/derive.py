"""From what the managers say to what this host's kernel should hold. Pure, but for a memory of what did not change.

With 5,000 services an update touches one of them: the others are recognised by being the same objects, and cost a
comparison each.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyswarm_agent.network.inputs import GATEWAY, NetworkInputs
from pyswarm_agent.network.overlay import (
    MAIN_TABLE,
    RULE_PRIORITY,
    TABLE_BASE,
    Address,
    Device,
    Forward,
    Neighbour,
    Overlay,
    Route,
    Rule,
)
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_proxy.state import (
    MARK_MASK,
    MARK_SOURCE,
    Backend,
    HostState,
    LocalTask,
    Peer,
    Pool,
    Proto,
    Published,
    Redirect,
    Segment,
    Service,
    SourceChecks,
    Vip,
    return_address,
    vtep_mac,
)

_PROTO = {spec.PROTOCOL_TCP: Proto.TCP, spec.PROTOCOL_UDP: Proto.UDP}


@dataclass(slots=True)
class _Known:
    message: ep.ServiceEndpoints
    local: frozenset[str]  # its tasks on this node
    unfit: frozenset[str]  # those of them that were left out
    service: Service


@dataclass(slots=True)
class Memory:
    """Of the last derivation."""

    networks: frozenset[str] = frozenset()
    known: dict[str, _Known] = field(default_factory=dict)
    owned: dict[str, ep.ServiceEndpoints] = field(default_factory=dict)  # those with a task on this node
    services: dict[str, Service] = field(default_factory=dict)


def own_node(inputs: NetworkInputs) -> wire.NodeAddress:
    """Raises PreconditionFailed."""
    for node in inputs.nodes:
        if node.node_id == inputs.node_id:
            return node
    raise PreconditionFailed("the managers have not told yet which address this node has; its network waits for that")


def host_state(inputs: NetworkInputs, memory: Memory, checks: SourceChecks) -> HostState:
    """Raises PreconditionFailed."""
    node = own_node(inputs)
    unfit = unfit_tasks(inputs)
    services = _services(inputs, unfit, memory)
    return HostState(
        number=inputs.node_number,
        address=node.address,
        gateway=GATEWAY,
        checks=checks,
        peers=_peers(inputs),
        segments=_segments(inputs, node.address),
        services=services,
        redirects=_redirects(inputs, unfit, memory),
        tasks=_local_tasks(inputs),
    )


def is_over(task: pb.Task) -> bool:
    return task.status.state >= pb.TASK_STATE_COMPLETE


def unfit_tasks(inputs: NetworkInputs) -> frozenset[str]:
    """This node's tasks that take no new connections, known here before the managers say so.

    Not those that are told to leave while the endpoints still have them: endpoints change everywhere by revisions,
    orders come task by task. An owner that began to redirect on its orders would pass flows on to tasks that leave in
    the very same revision on other hosts, and those would pass them on again."""
    return frozenset(
        task_id
        for task_id, task in inputs.tasks.items()
        if task_id in inputs.dead or is_over(task) or (task.leaving and not _serves_yet(inputs, task))
    ) | (inputs.dead - inputs.tasks.keys())


def _serves_yet(inputs: NetworkInputs, task: pb.Task) -> bool:
    endpoints = inputs.endpoints.get(task.service_id)
    return endpoints is not None and any(
        e.task_id == task.id and e.state == ep.ENDPOINT_STATE_SERVING for e in endpoints.endpoints
    )


def _peers(inputs: NetworkInputs) -> tuple[Peer, ...]:
    others = (n for n in inputs.nodes if n.node_id != inputs.node_id and n.number and n.address)
    return tuple(sorted((Peer(n.number, n.address) for n in others), key=lambda p: p.number))


def _own_block(network: pb.Network, node_id: str) -> str:
    """This node's overlay address in the network; "" without a block."""
    return next((first_address(block.cidr) for block in network.blocks if block.node_id == node_id), "")


def first_address(cidr: str) -> str:
    return cidr.split("/", 1)[0]


def _segments(inputs: NetworkInputs, address: str) -> tuple[Segment, ...]:
    found = [
        Segment(
            network_id=network.id,
            vni=network.vni,
            subnet=network.spec.subnet,
            vip_range=network.vip_range,
            source=_own_block(network, inputs.node_id) or address,
        )
        for network in inputs.networks.values()
        if network.vni and network.spec.subnet
    ]
    return tuple(sorted(found, key=lambda s: s.vni))


def _services(inputs: NetworkInputs, unfit: frozenset[str], memory: Memory) -> Mapping[str, Service]:
    networks = frozenset(inputs.networks)
    if networks != memory.networks:
        memory.known.clear()
        memory.owned.clear()
        memory.networks = networks
    changed = len(inputs.endpoints) != len(memory.known)
    services: dict[str, Service] = {}
    for service_id, message in inputs.endpoints.items():
        known = memory.known.get(service_id)
        if known is None or known.message is not message or (known.local and known.local & unfit != known.unfit):
            local = frozenset(e.task_id for e in message.endpoints if e.node_id == inputs.node_id)
            service = service_of(message, networks, unfit)
            if known is not None and known.service == service:
                service = known.service
            else:
                changed = True
            memory.known[service_id] = known = _Known(message, local, local & unfit, service)
            memory.owned.pop(service_id, None)
            if local:
                memory.owned[service_id] = message
        services[service_id] = known.service
    if len(memory.known) != len(services):
        for service_id in memory.known.keys() - services.keys():
            del memory.known[service_id]
            memory.owned.pop(service_id, None)
    for service in _host_ports(inputs, unfit):
        old = memory.services.get(service.service_id)
        changed = changed or old != service
        services[service.service_id] = old if old is not None and old == service else service
    if changed or len(services) != len(memory.services):
        memory.services = services
    return memory.services


def service_of(message: ep.ServiceEndpoints, networks: frozenset[str], unfit: frozenset[str]) -> Service:
    """`networks`: those that this host has; `unfit`: tasks to leave out."""
    serving = _serving(message, unfit)
    pools: dict[str, Pool] = {}

    def pool(network_id: str) -> Pool:
        if network_id not in pools:
            pools[network_id] = _pool(serving, network_id, message)
        return pools[network_id]

    vips: tuple[Vip, ...] = ()
    if message.mode == spec.ENDPOINT_MODE_VIP:
        vips = tuple(
            Vip(vip.address, pool(vip.network_id)) for vip in message.vips if vip.network_id in networks and vip.address
        )
    entrance = _entrance(message, serving, networks)
    published = tuple(
        Published(_PROTO[port.protocol], port.published, port.target, pool(entrance))
        for port in message.ports
        if port.published and port.mode == spec.PUBLISH_MODE_INGRESS
    )
    leaving: frozenset[str] = frozenset()
    if len(serving) != len(message.endpoints):
        leaving = frozenset(
            a.address
            for e in message.endpoints
            if e.state == ep.ENDPOINT_STATE_LEAVING or e.task_id in unfit
            for a in e.addresses
        )
    return Service(message.service_id, message.name, vips, published, leaving)


def _serving(message: ep.ServiceEndpoints, unfit: frozenset[str]) -> list[ep.Endpoint]:
    """In an order that is the same on all hosts."""
    found = [e for e in message.endpoints if e.state == ep.ENDPOINT_STATE_SERVING and e.task_id not in unfit]
    found.sort(key=lambda e: (e.slot, e.task_id))
    return found


def _pool(endpoints: Iterable[ep.Endpoint], network_id: str, message: ep.ServiceEndpoints) -> Pool:
    backends = tuple(
        Backend(a.address, e.weight or 1) for e in endpoints for a in e.addresses if a.network_id == network_id
    )
    return Pool(backends, hold=message.hold, affinity=message.affinity)


def _entrance(message: ep.ServiceEndpoints, serving: list[ep.Endpoint], networks: frozenset[str]) -> str:
    """The network by which published ports reach the tasks: the first of theirs that this host has."""
    order = [n.network_id for n in message.networks] + [a.network_id for e in serving[:1] for a in e.addresses]
    return next((network_id for network_id in order if network_id in networks), "")


def _host_ports(inputs: NetworkInputs, unfit: frozenset[str]) -> list[Service]:
    """Ports published on this host alone, straight to its task; while one takes the other's place, clients wait."""
    places: dict[tuple[str, Proto, int, int], list[Backend]] = {}
    names: dict[str, str] = {}
    for task in sorted(inputs.tasks.values(), key=lambda t: t.id):
        if is_over(task):
            continue
        address = next((a.address for a in task.addresses if a.network_id in inputs.networks), "")
        healthy = task.status.health in (pb.HEALTH_NONE, pb.HEALTH_HEALTHY)
        fit = task.status.state == pb.TASK_STATE_RUNNING and healthy and task.id not in unfit and address
        for port in task.spec.host_ports:
            key = (task.service_id, _PROTO[port.protocol], port.published, port.target)
            backends = places.setdefault(key, [])
            names[task.service_id] = task.service_name
            if fit:
                backends.append(Backend(address))
    by_service: dict[str, list[Published]] = {}
    for (service_id, proto, port_number, target), backends in places.items():
        endpoints = inputs.endpoints.get(service_id)
        hold = endpoints is not None and endpoints.hold
        by_service.setdefault(service_id, []).append(
            Published(proto, port_number, target, Pool(tuple(backends), hold=hold))
        )
    return [
        Service(f"host:{service_id}", names[service_id], published=tuple(ports))
        for service_id, ports in by_service.items()
    ]


def _redirects(inputs: NetworkInputs, unfit: frozenset[str], memory: Memory) -> tuple[Redirect, ...]:
    """For every address of this node that takes no new connections any more and may still be sent some."""
    leaving: dict[str, tuple[str, list[tuple[str, str]]]] = {}  # task → (service, [(network, address)])
    for message in memory.owned.values():
        for endpoint in message.endpoints:
            if endpoint.state == ep.ENDPOINT_STATE_LEAVING and endpoint.node_id == inputs.node_id:
                addresses = [(a.network_id, a.address) for a in endpoint.addresses]
                leaving[endpoint.task_id] = (message.service_id, addresses)
    taken: set[str] = set()
    for task in inputs.tasks.values():
        if task.id not in unfit and task.id not in leaving:
            # What balancers are told may be ahead of what this host is told of its tasks: it is confirmed with this.
            taken |= {a.address for a in task.addresses}
        elif not task.addresses_free:
            leaving[task.id] = (task.service_id, [(a.network_id, a.address) for a in task.addresses])
    found: dict[str, Redirect] = {}
    for task_id in sorted(leaving.keys() - inputs.settled):
        service_id, addresses = leaving[task_id]
        endpoints = inputs.endpoints.get(service_id)
        over = task_id in inputs.tasks and is_over(inputs.tasks[task_id])
        for network_id, address in addresses:
            if address in taken:  # it has been given to another task
                continue
            pool = Pool()
            if endpoints is not None:
                pool = _pool(_serving(endpoints, unfit), network_id, endpoints)
            found[address] = Redirect(
                task_id, address, Pool(pool.backends, pool.hold), dead=over or task_id in inputs.dead
            )
    return tuple(found[address] for address in sorted(found))


def _local_tasks(inputs: NetworkInputs) -> tuple[LocalTask, ...]:
    """Every address once: of two tasks the one that is not over has it."""
    owners: dict[str, str] = {}
    for task in sorted(inputs.tasks.values(), key=lambda t: (not is_over(t), t.created_at, t.id)):
        if not task.addresses_free:
            owners |= {a.address: task.id for a in task.addresses}
    found = []
    for task in inputs.tasks.values():
        addresses = tuple(a.address for a in task.addresses if owners.get(a.address) == task.id)
        if addresses:
            found.append(LocalTask(task.id, task.service_id, addresses))
    return tuple(sorted(found, key=lambda t: t.task_id))


def overlay(inputs: NetworkInputs, *, mtu: int, checks: SourceChecks) -> Overlay:
    """Without the tasks' own routes. `mtu`: of the overlay.

    Raises PreconditionFailed."""
    node = own_node(inputs)
    peers = _peers(inputs)
    by_number = {peer.number: peer for peer in peers}
    devices, addresses = set(), {Address("lo", GATEWAY, host_scope=True)}
    neighbours, forwards, routes, rules = set(), set(), set(), set()
    for segment in _segments(inputs, node.address):
        network = inputs.networks[segment.network_id]
        name, table = segment.device, TABLE_BASE | segment.vni
        rp_filter = 2 if checks.mark_peers else 0
        devices.add(Device(name, segment.vni, node.address, vtep_mac(inputs.node_number), mtu, rp_filter))
        for peer in peers:
            forwards.add(Forward(name, peer.mac, peer.address))
            back = return_address(segment.vni, peer.number)
            neighbours.add(Neighbour(name, back, peer.mac))
            routes.add(Route(f"{back}/32", device=name, gateway=back))
        routes.add(Route(segment.subnet))
        routes.add(Route(segment.vip_range, device=name, source=segment.source))
        if checks.mark_peers:
            routes.add(Route("0.0.0.0/0", device=name, table=table))
            rules |= _rules(segment.subnet, table)
        for block in network.blocks:
            if block.node_id == inputs.node_id:
                addresses.add(Address(name, first_address(block.cidr)))
            elif owner := by_number.get(block.node_number):
                gateway = first_address(block.cidr)
                neighbours.add(Neighbour(name, gateway, owner.mac))
                routes.add(Route(str(ipaddress.ip_network(block.cidr)), name, gateway, segment.source))
    return Overlay(
        frozenset(devices),
        frozenset(addresses),
        frozenset(neighbours),
        frozenset(forwards),
        frozenset(routes),
        frozenset(rules),
    )


def _rules(subnet: str, table: int) -> set[Rule]:
    """For reverse-path checks, which look up the way from a packet's destination back to its source: of what came from
    a peer, that would be by the overlay, wherever the client is."""
    inside = Rule(RULE_PRIORITY, subnet, MARK_SOURCE, MARK_MASK, MAIN_TABLE, destination=subnet)
    return {inside, Rule(RULE_PRIORITY + 1, subnet, MARK_SOURCE, MARK_MASK, table)}
