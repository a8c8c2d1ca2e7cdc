"""Links, addresses, routes, neighbours and rules as netlink requests, and reading them back. (Past 400 lines: all of
the netlink messages that are sent, and nothing else.)"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pyswarm_agent.network.overlay import (
    METRIC,
    PROTOCOL,
    Address,
    Device,
    Forward,
    Neighbour,
    Overlay,
    Route,
    Rule,
    Thing,
)
from pyswarm_proxy.netlink import wire
from pyswarm_proxy.netlink.wire import Request
from pyswarm_proxy.ruleset import VXLAN_PORT
from pyswarm_proxy.state import DEVICE_PREFIX, LINK_GROUP, LINK_PREFIX, PEER_GROUP

NEW_LINK, DEL_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDR, DEL_ADDR, GET_ADDR = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGH, DEL_NEIGH, GET_NEIGH = 28, 29, 30
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34
NEW_NETCONF = 80

_CREATE = wire.NLM_F_CREATE | wire.NLM_F_EXCL
_REPLACE = wire.NLM_F_CREATE | wire.NLM_F_REPLACE
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGH = struct.Struct("=BxxxiHBB")
_RULE = struct.Struct("=BBBBBxxBI")

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 4, 18, 20
_IFLA_STATS64, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 23, 26, 27, 28
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 4, 7, 15
_VETH_PEER = 1
_INET_CONF, _INET6_ADDR_GEN_MODE = 1, 8
# numbers of uapi/linux/ip.h: what they are called under /proc/sys/net/ipv4/conf/DEVICE/
_CONF = {
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
    "accept_local": 23,
    "src_valid_mark": 24,
    "route_localnet": 26,
}
_NUD_PERMANENT = 0x80
_NTF_SELF = 2
_AF_BRIDGE = 7
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_RTN_UNICAST, _RTN_UNREACHABLE = 1, 7
_ONLINK = 4
_TO_TABLE = 1

# What a task's link, and an overlay's device, let pass that other links do not; see the design of the ruleset. A task
# sends from its own address alone: a strict check costs nothing more where there are rules for routing.
LINK_CONF = {"route_localnet": 1, "rp_filter": 1, "accept_redirects": 0, "send_redirects": 0}
DEVICE_CONF = {"route_localnet": 1, "accept_local": 1, "src_valid_mark": 1, "accept_redirects": 0, "send_redirects": 0}


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    mtu: int
    mac: str
    up: bool
    alias: str = ""
    vxlan: tuple[int, str, int, bool] | None = None  # vni, local address, port, learning
    conf: Mapping[str, int] = field(default_factory=dict)
    group: int = 0
    received: int = 0  # bytes
    sent: int = 0


class Rtnl:
    """Of the network namespace of the thread that made it. Raises wire.NetlinkError."""

    def __init__(self) -> None:
        self._netlink = wire.Netlink(wire.NETLINK_ROUTE)

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Rtnl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, *requests: Request, ignore: Iterable[int] = ()) -> list[int]:
        """Raises for the first that failed otherwise; the ones after it were tried too."""
        return self._netlink.send(requests, ignore=ignore)

    def link(self, name: str) -> Link | None:
        answer = self._netlink.ask(GET_LINK, _LINK.pack(0, 0, 0, 0, 0) + wire.text(_IFLA_IFNAME, name))
        return None if answer is None else _link(answer[1])

    def links(self) -> list[Link]:
        return [_link(body) for _, body in self._netlink.dump(GET_LINK, _LINK.pack(0, 0, 0, 0, 0))]

    def addresses(self) -> list[tuple[int, str, int]]:
        """(index, IPv4 address, scope)."""
        found = []
        for _, body in self._netlink.dump(GET_ADDR, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, _, _, scope, index = _ADDR.unpack_from(body)
            parts = wire.attrs(memoryview(body)[_ADDR.size :])
            local = parts.get(2, parts.get(1))
            if local is not None:
                found.append((index, socket.inet_ntoa(local), scope))
        return found

    def routes(self, names: Mapping[int, str]) -> list[Route]:
        """Ours alone. One by a device that is not among `names` is left out: it came after whoever asks looked."""
        request = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
        found = []
        for _, body in self._netlink.dump(GET_ROUTE, request):
            _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
            parts = wire.attrs(memoryview(body)[_ROUTE.size :])
            if protocol != PROTOCOL:
                continue
            out = _u32(parts.get(4))
            if kind == _RTN_UNICAST and out not in names:
                continue
            found.append(
                Route(
                    destination=f"{_ip(parts.get(1))}/{length}",
                    device=names[out] if kind == _RTN_UNICAST else "",
                    gateway=_ip(parts[5]) if 5 in parts else "",
                    source=_ip(parts[7]) if 7 in parts else "",
                    table=_u32(parts[15]) if 15 in parts else table,
                )
            )
        return found

    def neighbours(self, names: Mapping[int, str]) -> list[Neighbour]:
        """Permanent ones on the devices in `names`."""
        found = []
        for _, body in self._netlink.dump(GET_NEIGH, _NEIGH.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, index, state, _, _ = _NEIGH.unpack_from(body)
            parts = wire.attrs(memoryview(body)[_NEIGH.size :])
            if index in names and state & _NUD_PERMANENT and 1 in parts and 2 in parts:
                found.append(Neighbour(names[index], _ip(parts[1]), _mac(parts[2])))
        return found

    def forwards(self, names: Mapping[int, str]) -> list[Forward]:
        """FDB entries of the devices in `names`."""
        found = []
        for _, body in self._netlink.dump(GET_NEIGH, _NEIGH.pack(_AF_BRIDGE, 0, 0, 0, 0)):
            _, index, _, _, _ = _NEIGH.unpack_from(body)
            parts = wire.attrs(memoryview(body)[_NEIGH.size :])
            if index in names and 1 in parts and 2 in parts and len(parts[1]) == 4:
                found.append(Forward(names[index], _mac(parts[2]), _ip(parts[1])))
        return found

    def rules(self) -> list[Rule]:
        """Ours alone."""
        found = []
        for _, body in self._netlink.dump(GET_RULE, _RULE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0)):
            _, to_length, length, _, table, _, _ = _RULE.unpack_from(body)
            parts = wire.attrs(memoryview(body)[_RULE.size :])
            if 21 not in parts or parts[21][0] != PROTOCOL:
                continue
            found.append(
                Rule(
                    priority=_u32(parts.get(6)),
                    source=f"{_ip(parts.get(2))}/{length}",
                    mark=_u32(parts.get(10)),
                    mask=_u32(parts.get(16)),
                    table=_u32(parts[15]) if 15 in parts else table,
                    destination=f"{_ip(parts[1])}/{to_length}" if 1 in parts else "",
                )
            )
        return found


def found(rtnl: Rtnl, gateway: str) -> tuple[Overlay, list[Link]]:
    """What there is of ours in the kernel, and all links."""
    links = rtnl.links()
    names = {link.index: link.name for link in links}
    devices = {link.index: link.name for link in links if link.name.startswith(DEVICE_PREFIX)}
    ours = {link.index: link.name for link in links if link.name.startswith((DEVICE_PREFIX, LINK_PREFIX))}
    return (
        Overlay(
            devices=frozenset(_device(link) for link in links if link.index in devices and link.vxlan is not None),
            addresses=frozenset(
                Address(names[index], address, scope == _SCOPE_HOST)
                for index, address, scope in rtnl.addresses()
                if index in devices or (address == gateway and names.get(index) == "lo")
            ),
            neighbours=frozenset(rtnl.neighbours(ours)),
            forwards=frozenset(rtnl.forwards(devices)),
            routes=frozenset(rtnl.routes(names)),
            rules=frozenset(rtnl.rules()),
        ),
        links,
    )


def _device(link: Link) -> Device:
    """One that is not as we make them (down, another port, a setting changed by hand) equals none that is wanted."""
    assert link.vxlan is not None
    vni, local, port, learning = link.vxlan
    right = link.up and link.group == PEER_GROUP
    right = right and all(link.conf.get(name, value) == value for name, value in DEVICE_CONF.items())
    if port != VXLAN_PORT or learning:
        local = ""  # to be made anew
    return Device(link.name, vni, local, link.mac, link.mtu if right else 0, link.conf.get("rp_filter", 0))


def request(thing: Thing, index: Mapping[str, int], *, add: bool) -> list[Request]:
    """KeyError: a device in it does not exist."""
    if isinstance(thing, Device):
        if not add:
            return [Request(DEL_LINK, _LINK.pack(0, 0, index[thing.name], 0, 0))]
        return new_device(thing) if thing.name not in index else []
    if isinstance(thing, Address):
        scope = _SCOPE_HOST if thing.host_scope else 0
        body = _ADDR.pack(socket.AF_INET, 32, 0, scope, index[thing.device])
        body += wire.ipv4(2, thing.address) + wire.ipv4(1, thing.address)
        return [Request(NEW_ADDR, body, _REPLACE) if add else Request(DEL_ADDR, body)]
    if isinstance(thing, Neighbour):
        body = _NEIGH.pack(socket.AF_INET, index[thing.device], _NUD_PERMANENT, 0, 0) + wire.ipv4(1, thing.address)
        return [Request(NEW_NEIGH, body + wire.mac(2, thing.mac), _REPLACE) if add else Request(DEL_NEIGH, body)]
    if isinstance(thing, Forward):
        body = _NEIGH.pack(_AF_BRIDGE, index[thing.device], _NUD_PERMANENT, _NTF_SELF, 0)
        body += wire.ipv4(1, thing.to) + wire.mac(2, thing.mac)
        return [Request(NEW_NEIGH, body, _REPLACE) if add else Request(DEL_NEIGH, body)]
    if isinstance(thing, Route):
        return [_route(thing, index, add=add)]
    return [_rule(thing, add=add)]


def new_device(device: Device) -> list[Request]:
    data = wire.nest(
        _INFO_DATA,
        wire.u32(_VXLAN_ID, device.vni),
        wire.ipv4(_VXLAN_LOCAL, device.local),
        wire.u8(_VXLAN_LEARNING, 0),
        wire.be16(_VXLAN_PORT, VXLAN_PORT),
    )
    body = _LINK.pack(0, 0, 0, 0, 0) + wire.text(_IFLA_IFNAME, device.name) + wire.mac(_IFLA_ADDRESS, device.mac)
    body += (
        wire.u32(_IFLA_MTU, device.mtu)
        + wire.u32(_IFLA_GROUP, PEER_GROUP)
        + wire.nest(_IFLA_LINKINFO, wire.text(_INFO_KIND, "vxlan"), data)
    )
    return [Request(NEW_LINK, body, _CREATE)]


def new_veth(name: str, mac: str, mtu: int, peer: str, peer_mac: str, netns: int) -> Request:
    """`peer` appears in the namespace of the descriptor `netns`."""
    common = wire.u32(_IFLA_MTU, mtu)
    inner = _LINK.pack(0, 0, 0, 0, 0) + wire.text(_IFLA_IFNAME, peer) + wire.mac(_IFLA_ADDRESS, peer_mac) + common
    inner += wire.u32(_IFLA_NET_NS_FD, netns)
    info = wire.nest(_IFLA_LINKINFO, wire.text(_INFO_KIND, "veth"), wire.nest(_INFO_DATA, wire.attr(_VETH_PEER, inner)))
    body = _LINK.pack(0, 0, 0, 0, 0) + wire.text(_IFLA_IFNAME, name) + wire.mac(_IFLA_ADDRESS, mac) + common + info
    body += wire.u32(_IFLA_GROUP, LINK_GROUP)
    return Request(NEW_LINK, body, _CREATE)


def set_up(index: int, conf: Mapping[str, int], *, group: int = 0, mtu: int = 0, alias: str = "") -> Request:
    """Up, with settings of /proc/sys/net/ipv4/conf/DEVICE, and no IPv6 address of its own."""
    body = _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP)
    if mtu:
        body += wire.u32(_IFLA_MTU, mtu)
    if group:
        body += wire.u32(_IFLA_GROUP, group)
    if alias:
        body += wire.text(_IFLA_IFALIAS, alias)
    if conf:
        settings = wire.nest(_INET_CONF, *(wire.u32(_CONF[name], value) for name, value in conf.items()))
        body += wire.nest(_IFLA_AF_SPEC, wire.nest(socket.AF_INET, settings))
    return Request(SET_LINK, body)


def set_mtu(index: int, mtu: int) -> Request:
    return Request(SET_LINK, _LINK.pack(0, 0, index, 0, 0) + wire.u32(_IFLA_MTU, mtu))


def no_ipv6(index: int) -> Request:
    """No link-local address; refused (EAFNOSUPPORT) by a kernel without IPv6."""
    spec = wire.nest(_IFLA_AF_SPEC, wire.nest(socket.AF_INET6, wire.u8(_INET6_ADDR_GEN_MODE, 1)))
    return Request(SET_LINK, _LINK.pack(0, 0, index, 0, 0) + spec)


def del_link(index: int) -> Request:
    return Request(DEL_LINK, _LINK.pack(0, 0, index, 0, 0))


def _route(route: Route, index: Mapping[str, int], *, add: bool) -> Request:
    network = ipaddress.ip_network(route.destination)
    scope = _SCOPE_LINK if route.device and not route.gateway else 0
    kind = _RTN_UNICAST if route.device else _RTN_UNREACHABLE
    flags = _ONLINK if route.gateway else 0
    table = route.table if route.table < 256 else 0
    body = _ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, table, PROTOCOL, scope, kind, flags)
    body += wire.u32(15, route.table) + wire.u32(6, METRIC)
    if network.prefixlen:
        body += wire.ipv4(1, str(network.network_address))
    if route.device:
        body += wire.u32(4, index[route.device])
    if route.gateway:
        body += wire.ipv4(5, route.gateway)
    if route.source:
        body += wire.ipv4(7, route.source)
    return Request(NEW_ROUTE, body, _REPLACE) if add else Request(DEL_ROUTE, body)


def container_route(destination: str, index: int, *, gateway: str = "", source: str = "") -> Request:
    """In a task's own namespace, where everything is ours: no metric."""
    network = ipaddress.ip_network(destination)
    scope = 0 if gateway else _SCOPE_LINK
    body = _ROUTE.pack(socket.AF_INET, network.prefixlen, 0, 0, 254, PROTOCOL, scope, _RTN_UNICAST, 0)
    body += wire.u32(4, index)
    if network.prefixlen:
        body += wire.ipv4(1, str(network.network_address))
    if gateway:
        body += wire.ipv4(5, gateway)
    if source:
        body += wire.ipv4(7, source)
    return Request(NEW_ROUTE, body, _REPLACE)


def _rule(rule: Rule, *, add: bool) -> Request:
    network = ipaddress.ip_network(rule.source)
    to = ipaddress.ip_network(rule.destination) if rule.destination else None
    body = _RULE.pack(socket.AF_INET, to.prefixlen if to else 0, network.prefixlen, 0, 0, _TO_TABLE, 0)
    if to:
        body += wire.ipv4(1, str(to.network_address))
    body += wire.ipv4(2, str(network.network_address)) + wire.u32(6, rule.priority)
    body += wire.u32(10, rule.mark) + wire.u32(16, rule.mask) + wire.u32(15, rule.table) + wire.u8(21, PROTOCOL)
    return Request(NEW_RULE, body, _CREATE) if add else Request(DEL_RULE, body)


def index_of(links: Collection[Link]) -> dict[str, int]:
    return {link.name: link.index for link in links}


# What may have happened already when something is added or removed.
ADD_IGNORES = (errno.EEXIST,)
REMOVE_IGNORES = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    parts = wire.attrs(memoryview(body)[_LINK.size :])
    vxlan = None
    info = wire.attrs(parts[_IFLA_LINKINFO]) if _IFLA_LINKINFO in parts else {}
    if _INFO_KIND in info and wire.as_text(info[_INFO_KIND]) == "vxlan" and _INFO_DATA in info:
        data = wire.attrs(info[_INFO_DATA])
        vxlan = (
            _u32(data.get(_VXLAN_ID)),
            _ip(data.get(_VXLAN_LOCAL)),
            int.from_bytes(data.get(_VXLAN_PORT, b""), "big"),
            bool(data.get(_VXLAN_LEARNING, b"\0")[0]),
        )
    conf: dict[str, int] = {}
    spec = wire.attrs(parts[_IFLA_AF_SPEC]) if _IFLA_AF_SPEC in parts else {}
    if socket.AF_INET in spec and (inet := wire.attrs(spec[socket.AF_INET]).get(_INET_CONF)) is not None:
        values = struct.unpack(f"={len(inet) // 4}i", inet[: len(inet) // 4 * 4])
        conf = {name: values[number - 1] for name, number in _CONF.items() if number <= len(values)}
    received, sent = struct.unpack_from("=QQ", parts[_IFLA_STATS64], 16) if _IFLA_STATS64 in parts else (0, 0)
    return Link(
        index=index,
        name=wire.as_text(parts[_IFLA_IFNAME]),
        mtu=_u32(parts.get(_IFLA_MTU)),
        mac=_mac(parts[_IFLA_ADDRESS]) if _IFLA_ADDRESS in parts else "",
        up=bool(flags & _IFF_UP),
        alias=wire.as_text(parts[_IFLA_IFALIAS]) if _IFLA_IFALIAS in parts else "",
        vxlan=vxlan,
        conf=conf,
        group=_u32(parts.get(_IFLA_GROUP)),
        received=received,
        sent=sent,
    )


def _ip(payload: memoryview | bytes | None) -> str:
    return socket.inet_ntoa(payload) if payload else "0.0.0.0"


def _mac(payload: memoryview) -> str:
    return bytes(payload).hex(":")


def _u32(payload: memoryview | bytes | None) -> int:
    return struct.unpack("=I", payload)[0] if payload else 0
