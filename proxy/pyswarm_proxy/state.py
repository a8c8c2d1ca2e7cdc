"""The values that the balancer works from: what one host's kernel is wanted to hold. Addresses are dotted strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

DEVICE_PREFIX = "psx"  # VXLAN devices, psx<vni>
LINK_PREFIX = "psc"  # host ends of the tasks' links
# Their device groups (`ip link show group`), by which the rules know them; "ps" and a number.
GROUP, GROUP_MASK = 0x70730000, 0xFFFFFFFC
LINK_GROUP = GROUP | 1
PEER_GROUP = GROUP | 2

# A flow that a peer let in has a mark: whose it is (upper 6 bits), the network (10) and the peer (16).
MARK_MASK = 0xFC000000
MARK_PEER = 0x78000000
MARK_SOURCE = 0x7C000000  # of packets from peers, where the host checks reverse paths (SourceChecks.mark_peers)
# While its way is being chosen, a reply of such a flow goes to an address of this range that stands for the same
# network and peer; then it gets its own back.
RETURN_RANGE = "240.0.0.0/6"


class Proto(Enum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class Backend:
    """A task that takes connections. `weight` is a number of slots, 1…"""

    address: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Pool:
    """Who takes the new connections of one place. Without backends: `hold` drops SYNs, so that clients wait and their
    retransmission connects; otherwise they are refused. The order counts with `affinity`: it must be the same on all
    hosts.
    """

    backends: tuple[Backend, ...] = ()
    hold: bool = False
    affinity: bool = False  # the same client address reaches the same backend


@dataclass(frozen=True, slots=True)
class Vip:
    """Every port of the address leads to the same port of a backend."""

    address: str
    pool: Pool


@dataclass(frozen=True, slots=True)
class Published:
    """A port of this host, on all its addresses."""

    proto: Proto
    port: int
    target: int  # the backends' port
    pool: Pool


@dataclass(frozen=True, slots=True)
class Service:
    """One group of rules; a published port that another service has too belongs to the one whose id is smaller.

    `leaving`: addresses that get no new connections but keep their old ones. One that was a backend and is neither that
    nor leaving any more is dead.
    """

    service_id: str
    name: str
    vips: tuple[Vip, ...] = ()
    published: tuple[Published, ...] = ()
    leaving: frozenset[str] = frozenset()

    @property
    def backends(self) -> frozenset[str]:
        """The addresses of all pools."""
        pools = [vip.pool for vip in self.vips] + [port.pool for port in self.published]
        return frozenset(backend.address for pool in pools for backend in pool.backends)


@dataclass(frozen=True, slots=True)
class Redirect:
    """On the host that owns it: a task that leaves or died gets no new flow; they go to the pool. `dead`: it died
    without notice: what is established is reset, and its refusals of half-open connections are hidden, so that clients
    retry."""

    task_id: str
    address: str
    pool: Pool
    dead: bool = False


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A task with a link on this host."""

    task_id: str
    service_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node. `number` 1…65535; its MAC in every overlay and the marks of its flows derive from it."""

    number: int
    address: str  # underlay

    @property
    def mac(self) -> str:
        return vtep_mac(self.number)


@dataclass(frozen=True, slots=True)
class Segment:
    """A network on this host."""

    network_id: str
    vni: int
    subnet: str
    vip_range: str
    source: str  # what this host sends from: its overlay address, or without a block here its underlay address

    @property
    def device(self) -> str:
        return f"{DEVICE_PREFIX}{self.vni}"


@dataclass(frozen=True, slots=True)
class SourceChecks:
    """What the ruleset must do about the kernel's own checks of packets' sources (rp_filter).

    `mark_peers`: packets from peers get a mark by which the kernel looks where their reply will go, or it would drop
    those of clients beyond the overlay. `tasks`: the kernel does not see to it that a task sends from its own address.
    """

    mark_peers: bool = False
    tasks: bool = True


@dataclass(frozen=True, slots=True)
class HostState:
    """Services are compared by identity: hand the same object over again when nothing in it has changed."""

    number: int  # this node's
    address: str  # this node's, underlay
    gateway: str  # the host end of every link: 169.254.1.1, where DNS answers
    checks: SourceChecks = SourceChecks()
    peers: tuple[Peer, ...] = ()
    segments: tuple[Segment, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    redirects: tuple[Redirect, ...] = ()
    tasks: tuple[LocalTask, ...] = ()


def _place(vni: int, number: int) -> int:
    """Networks whose VNIs agree in the lower ten bits share a place; then a reply may go through the other one's
    device, which its peer takes just as well."""
    return (vni & 0x3FF) << 16 | number


def flow_mark(vni: int, number: int) -> int:
    """Of flows that come in from that peer in that network."""
    return MARK_PEER | _place(vni, number)


def return_address(vni: int, number: int) -> str:
    """Where replies of those flows are routed to."""
    place = _place(vni, number)
    return f"{240 + (place >> 24)}.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}"


def vtep_mac(number: int) -> str:
    """The MAC of a node's end of every overlay."""
    if not 1 <= number <= 0xFFFF:
        raise ValueError(f"node number {number} is not in 1…65535")
    return f"02:79:00:01:{number >> 8:02x}:{number & 255:02x}"


def changed_services(before: HostState | None, after: HostState) -> list[str]:
    """Ids of services that came, went, or are not the same object. Its cost is a comparison a service: with 5,000 of
    them, building a set of their names would be most of a change's."""
    old = before.services if before is not None else {}
    new = after.services
    if old is new:
        return []
    found = [service_id for service_id, service in new.items() if old.get(service_id) is not service]
    if len(old) != len(new) or any(service_id not in old for service_id in found):
        found += [service_id for service_id in old if service_id not in new]
    return found
