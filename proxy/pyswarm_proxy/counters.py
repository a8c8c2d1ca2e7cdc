"""What each local task was given: counters in the ruleset, read in one small dump a set, for local tasks only."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from pyswarm_proxy.netlink import wire

_NFTABLES = 10 << 8
_GET_TABLE = _NFTABLES | 1
_GET_ELEMENTS = _NFTABLES | 13
_TABLE_NAME, _TABLE_HANDLE = 1, 4
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_EXPR, _ELEMENT_EXPRS = 1, 7, 11
_EXPR_DATA = 2
_BYTES, _PACKETS = 1, 2
NFPROTO_IPV4 = 2


@dataclass(frozen=True, slots=True)
class Count:
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one task, or of all tasks that a service had here. `connections` (flows of any protocol) reached it, over
    whichever host they came in; bytes are all that passed its link, what it asked of others included; `resets` were
    sent by it. Bytes and resets are the kernel's own figures: counting them by rules took 4 % of a packet's time.
    """

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    resets: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.connections + other.connections,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.resets + other.resets,
        )


class Elements:
    """Reads counted sets keyed by one IPv4 address. Of the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._netlink = wire.Netlink(wire.NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def counts(self, set_name: str) -> dict[str, Count]:
        """By address; nothing when there is no such set."""
        body = (
            struct.pack("=BBH", NFPROTO_IPV4, 0, 0) + wire.text(_LIST_TABLE, "pyswarm") + wire.text(_LIST_SET, set_name)
        )
        try:
            answer = self._netlink.dump(_GET_ELEMENTS, body)
        except wire.NetlinkError as e:
            if e.errno == errno.ENOENT:
                return {}
            raise
        found: dict[str, Count] = {}
        for _, message in answer:
            elements = wire.attrs(memoryview(message)[4:]).get(_LIST_ELEMENTS)
            for _, element in wire.each_attr(elements) if elements is not None else ():
                parsed = _element(element)
                if parsed is not None:
                    found[parsed[0]] = parsed[1]
        return found

    def table_handle(self) -> int:
        """The kernel's number of our table; another one was made by somebody else, 0 = there is none."""
        answer = self._netlink.ask(
            _GET_TABLE, struct.pack("=BBH", NFPROTO_IPV4, 0, 0) + wire.text(_TABLE_NAME, "pyswarm")
        )
        if answer is None:
            return 0
        return int.from_bytes(wire.attrs(memoryview(answer[1])[4:]).get(_TABLE_HANDLE, memoryview(b"")), "big")


def _element(data: memoryview) -> tuple[str, Count] | None:
    parts = wire.attrs(data)
    key = parts.get(_ELEMENT_KEY)
    expression = parts.get(_ELEMENT_EXPR)
    if expression is None and _ELEMENT_EXPRS in parts:
        expression = next((payload for _, payload in wire.each_attr(parts[_ELEMENT_EXPRS])), None)
    if key is None or expression is None:
        return None
    value = next((payload for _, payload in wire.each_attr(key)), None)
    counter = wire.attrs(expression).get(_EXPR_DATA)
    if value is None or len(value) != 4 or counter is None:
        return None
    numbers = {kind: int.from_bytes(payload, "big") for kind, payload in wire.each_attr(counter)}
    return socket.inet_ntoa(value), Count(numbers.get(_PACKETS, 0), numbers.get(_BYTES, 0))
