"""What one host's links, routes and neighbours should be, as values, and what to do about the difference. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import TypeVar

from pyswarm_proxy.state import LINK_PREFIX

MAIN_TABLE = 254
# Marks our routes and rules in the kernel (`ip route show proto 121`): nothing without it is ever touched.
PROTOCOL = 121
# Our routes' metric: no other one has it, so that replacing ours never replaces somebody else's.
METRIC = 79
# Only where the host checks reverse paths on all devices: two rules a network, and a table (this number + vni).
RULE_PRIORITY = 7900
TABLE_BASE = 0x79000000
VXLAN_OVERHEAD = 50  # bytes; outer Ethernet is not counted in an MTU: IPv4 20 + UDP 8 + VXLAN 8 + inner Ethernet 14


@dataclass(frozen=True, slots=True)
class Device:
    """A VXLAN device. `rp_filter`: 0, or 2 where the host checks reverse paths everywhere (`all.rp_filter` wins over 0,
    but a looser 2 wins over it)."""

    name: str
    vni: int
    local: str
    mac: str
    mtu: int
    rp_filter: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    device: str
    address: str
    host_scope: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent one."""

    device: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames to this MAC go to that underlay address."""

    device: str
    mac: str
    to: str


@dataclass(frozen=True, slots=True)
class Route:
    """Without a device: unreachable. With a gateway: on-link, whatever the device's addresses are."""

    destination: str  # CIDR
    device: str = ""
    gateway: str = ""
    source: str = ""
    table: int = MAIN_TABLE

    @property
    def key(self) -> tuple[int, str]:
        return self.table, self.destination


@dataclass(frozen=True, slots=True)
class Rule:
    priority: int
    source: str  # CIDR
    mark: int
    mask: int
    table: int
    destination: str = ""  # CIDR


@dataclass(frozen=True, slots=True)
class Overlay:
    """As wanted, or as found."""

    devices: frozenset[Device] = field(default_factory=frozenset)
    addresses: frozenset[Address] = field(default_factory=frozenset)
    neighbours: frozenset[Neighbour] = field(default_factory=frozenset)
    forwards: frozenset[Forward] = field(default_factory=frozenset)
    routes: frozenset[Route] = field(default_factory=frozenset)
    rules: frozenset[Rule] = field(default_factory=frozenset)


Thing = Device | Address | Neighbour | Forward | Route | Rule
T = TypeVar("T", Address, Neighbour, Forward, Route, Rule)


@dataclass(frozen=True, slots=True)
class Step:
    thing: Thing
    add: bool  # or remove


def steps(found: Overlay, wanted: Overlay, *, remove: bool = True) -> Iterator[Step]:
    """In an order in which each can be carried out. Adding replaces what has the same name or key.

    `remove=False`: what is not wanted stays, but for devices that must be made anew. What is on a task's link is never
    removed: the link may be newer than what is wanted, and takes it along when it goes.
    """
    by_name = {device.name: device for device in wanted.devices}
    remade = set()
    for device in sorted(found.devices, key=lambda d: d.name):
        new = by_name.get(device.name)
        if new is None and not remove:
            continue
        if new is None or (new.vni, new.local, new.mac) != (device.vni, device.local, device.mac):
            remade.add(device.name)
            yield Step(device, add=False)
    for device in sorted(wanted.devices - found.devices, key=lambda d: d.name):
        yield Step(device, add=True)

    yield from _both(_kept(found.addresses, remade), wanted.addresses, remove)
    yield from _both(_kept(found.neighbours, remade), wanted.neighbours, remove)
    yield from _both(_kept(found.forwards, remade), wanted.forwards, remove)

    keys = {route.key for route in wanted.routes}
    routes = _kept(found.routes, remade)
    stale = {route for route in routes - wanted.routes if route.key not in keys}  # the others are replaced
    yield from _both(stale | (routes & wanted.routes), wanted.routes, remove)
    yield from _both(found.rules, wanted.rules, remove)


def _kept(found: Set[T], remade: Set[str]) -> Set[T]:
    """What was on a device that is made anew went with it."""
    return {thing for thing in found if getattr(thing, "device", "") not in remade}


def _both(found: Set[T], wanted: Set[T], remove: bool) -> Iterator[Step]:
    for thing in sorted(found - wanted, key=repr):
        if remove and not getattr(thing, "device", "").startswith(LINK_PREFIX):
            yield Step(thing, add=False)
    for thing in sorted(wanted - found, key=repr):
        yield Step(thing, add=True)
