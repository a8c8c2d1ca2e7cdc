"""Notices that somebody else changed links, routes, neighbours or rules of ours. Costs nothing while nothing
happens."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable

from pyswarm_agent.network import rtnl
from pyswarm_agent.network.overlay import PROTOCOL
from pyswarm_proxy.netlink import wire
from pyswarm_proxy.state import DEVICE_PREFIX, LINK_PREFIX

# link, neigh, ipv4 ifaddr, ipv4 route, ipv4 rule, ipv4 netconf: bit (group - 1)
_GROUPS = (1 << 0) | (1 << 2) | (1 << 4) | (1 << 6) | (1 << 7) | (1 << 23)
_NUD_PERMANENT = 0x80


class KernelWatch:
    """Calls `on_change` (in the event loop) for a change of something that is, or may be, ours."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._netlink = wire.Netlink(wire.NETLINK_ROUTE, groups=_GROUPS, timeout=0)
        self._ours: frozenset[int] = frozenset()

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._netlink.socket.fileno(), self._read)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(self._netlink.socket.fileno())
        self._netlink.close()

    def ours(self, indexes: frozenset[int]) -> None:
        """The devices whose neighbours, addresses and settings matter: the underlay's, lo, and ours."""
        self._ours = indexes

    def forget(self) -> None:
        """What was told so far is about to be looked at."""
        while True:
            try:
                self._netlink.socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS is told once

    def _read(self) -> None:
        for _ in range(64):
            try:
                data = self._netlink.socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: something was lost, so look
                self._on_change()
                return
            if any(self._matters(kind, body) for kind, _, _, _, body in wire.messages(memoryview(data))):
                self._on_change()

    def _matters(self, kind: int, body: memoryview) -> bool:
        if kind in (rtnl.NEW_ROUTE, rtnl.DEL_ROUTE):
            return body[5] == PROTOCOL
        if kind in (rtnl.NEW_LINK, rtnl.DEL_LINK):
            index = struct.unpack_from("=i", body, 4)[0]
            name = bytes(body[20:24])  # IFLA_IFNAME is the first attribute; else its index must do
            return index in self._ours or name.startswith((DEVICE_PREFIX.encode(), LINK_PREFIX.encode()))
        if kind in (rtnl.NEW_NEIGH, rtnl.DEL_NEIGH):
            index, state = struct.unpack_from("=iH", body, 4)
            # one that is deleted is not permanent any more when it is told
            return index in self._ours and (kind == rtnl.DEL_NEIGH or bool(state & _NUD_PERMANENT))
        if kind in (rtnl.NEW_ADDR, rtnl.DEL_ADDR):
            return struct.unpack_from("=I", body, 4)[0] in self._ours
        if kind in (rtnl.NEW_RULE, rtnl.DEL_RULE):
            protocol = wire.attrs(body[12:]).get(21)
            return protocol is not None and protocol[0] == PROTOCOL
        return kind == rtnl.NEW_NETCONF
