"""The kernel's table of flows, as far as the balancer needs it: a task's flows, and deleting some.

The kernel filters the dump (since Linux 5.8) and older ones send everything, which is then filtered here. Calls block
for a few milliseconds: make them in a thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm_proxy.netlink import wire

TCP = socket.IPPROTO_TCP
UDP = socket.IPPROTO_UDP

_SUBSYSTEM = 1 << 8
_GET = _SUBSYSTEM | 1
_DELETE = _SUBSYSTEM | 2
_HEADER = struct.pack("=BBH", socket.AF_INET, 0, 0)

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _ID, _FILTER = 1, 2, 3, 4, 12, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SRC, _IP_DST = 1, 2
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_BY_IP_SRC, _BY_PROTO = 1 << 0, 1 << 3
_PROTOINFO_TCP, _TCP_STATE = 1, 1
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry. `server` is where its packets really go (after DNAT), `client` where they come from."""

    proto: int
    client: str
    server: str
    tcp_state: int  # the kernel's number; 0 for other protocols
    replied: bool
    assured: bool
    handle: bytes  # names it to the kernel


class Conntrack:
    """Of the network namespace of the thread that made it. Raises OSError."""

    def __init__(self) -> None:
        self._netlink = wire.Netlink(wire.NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def to(self, server: str, proto: int = 0) -> list[Flow]:
        """Flows whose packets go to this address; `proto` 0 = all."""
        ip = wire.nest(_TUPLE_IP, wire.ipv4(_IP_SRC, server))
        flags = _BY_IP_SRC
        tuple_ = ip
        if proto:
            tuple_ += wire.nest(_TUPLE_PROTO, wire.u8(_PROTO_NUM, proto))
            flags |= _BY_PROTO
        return [
            flow
            for flow in self._dump(
                wire.nest(_TUPLE_REPLY, tuple_)
                + wire.nest(_FILTER, wire.u32(_FILTER_ORIG, 0), wire.u32(_FILTER_REPLY, flags))
            )
            if flow.server == server and proto in (0, flow.proto)
        ]

    def all(self) -> list[Flow]:
        return self._dump(b"")

    def from_(self, client: str) -> list[Flow]:
        """Flows that this address opened."""
        tuple_ = wire.nest(_TUPLE_ORIG, wire.nest(_TUPLE_IP, wire.ipv4(_IP_SRC, client)))
        flags = wire.nest(_FILTER, wire.u32(_FILTER_ORIG, _BY_IP_SRC), wire.u32(_FILTER_REPLY, 0))
        return [flow for flow in self._dump(tuple_ + flags) if flow.client == client]

    def delete(self, flows: Iterable[Flow]) -> int:
        """How many were still there. Entries that went by themselves, or were replaced meanwhile, are no error."""
        requests = [wire.Request(_DELETE, _HEADER + flow.handle) for flow in flows]
        if not requests:
            return 0
        codes = self._netlink.send(requests, ignore=(errno.ENOENT,))
        return codes.count(0)

    def _dump(self, attributes: bytes) -> list[Flow]:
        return [flow for _, body in self._netlink.dump(_GET, _HEADER + attributes) if (flow := _parse(body))]


def _parse(body: bytes) -> Flow | None:
    orig = reply = protoinfo = ident = None
    status = 0
    for kind, payload in wire.each_attr(memoryview(body)[4:]):
        if kind == _TUPLE_ORIG:
            orig = payload
        elif kind == _TUPLE_REPLY:
            reply = payload
        elif kind == _STATUS:
            status = int.from_bytes(payload, "big")
        elif kind == _PROTOINFO:
            protoinfo = payload
        elif kind == _ID:
            ident = payload
    if orig is None or reply is None:
        return None
    client, proto = _source(orig)
    server, _ = _source(reply)
    state = 0
    if protoinfo is not None and (tcp := wire.attrs(protoinfo).get(_PROTOINFO_TCP)) is not None:
        state = bytes(wire.attrs(tcp).get(_TCP_STATE, memoryview(b"\0")))[0]
    # The tuple as the kernel gave it, its zone included, and the id: never another flow that took its place.
    handle = wire.attr(_TUPLE_ORIG | 0x8000, bytes(orig)) + (wire.attr(_ID, bytes(ident)) if ident is not None else b"")
    return Flow(proto, client, server, state, bool(status & _SEEN_REPLY), bool(status & _ASSURED), handle)


def _source(tuple_: memoryview) -> tuple[str, int]:
    address, proto = "", 0
    for kind, payload in wire.each_attr(tuple_):
        if kind == _TUPLE_IP:
            for part, value in wire.each_attr(payload):
                if part == _IP_SRC:
                    address = socket.inet_ntoa(value)
        elif kind == _TUPLE_PROTO:
            for part, value in wire.each_attr(payload):
                if part == _PROTO_NUM:
                    proto = value[0]
    return address, proto
