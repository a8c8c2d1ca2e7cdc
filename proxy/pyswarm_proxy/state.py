"""The values that the balancer works from: the wanted state of one host's kernel. Addresses are dotted strings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Proto(Enum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    address: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Frontend:
    """One place that clients connect to: a VIP and a target port, or (vip = "") a published port."""

    vip: str
    proto_port: tuple[str, int]  # ("tcp", 80)
    backends: tuple[Backend, ...]
    hold: bool  # without backends: True = drop SYNs, so that clients wait; False = refuse
    affinity: bool = False
    service: str = ""  # for counters


@dataclass(frozen=True, slots=True)
class Redirect:
    """On the owner host: new flows to a task that leaves or died go to a live backend (none: hold or refuse, as its
    frontend does). `dead`: it died without notice: reset what is established, hide refusals of half-open flows."""

    task_id: str
    address: str
    proto_port: tuple[str, int]
    to: tuple[Backend, ...]
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, or this one."""

    number: int
    address: str  # underlay
    overlay: tuple[tuple[str, str], ...]  # (network id, its overlay address there)


@dataclass(frozen=True, slots=True)
class Segment:
    """A network on this host."""

    network_id: str
    vni: int
    subnet: str
    vip_range: str
    device: str  # its VXLAN device, psx<vni>
    own_blocks: tuple[str, ...]
    own_address: str  # this node's overlay address; "" without a block here


@dataclass(frozen=True, slots=True)
class HostState:
    node_number: int
    peers: tuple[Peer, ...]
    segments: tuple[Segment, ...]
    frontends: tuple[Frontend, ...]
    redirects: tuple[Redirect, ...]
    local_tasks: tuple[tuple[str, str], ...]  # (task id, address) of this host
    dns_address: str = "169.254.1.1"
