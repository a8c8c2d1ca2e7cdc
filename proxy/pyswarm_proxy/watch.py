"""Notices that somebody else changed our tables: `nft flush ruleset` in a shell, a firewall's reload.

The kernel tells every change to whoever listens; our own are recognised by the netlink port that made them. It costs
nothing while nothing happens, where listing 5,000 services each second would cost a third of a core.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pyswarm_proxy.netlink import wire

_GROUP_NFTABLES = 7
_SUBSYSTEM = 10
_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 1, 2
_NEW_GEN = 15
_OURS = b"pyswarm\0"
_GET_GEN = (_SUBSYSTEM << 8) | 16


def netlink_ports(pid: int) -> frozenset[int]:
    """The netfilter sockets' port numbers of a process in our network namespace; usually one, its pid."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    ports = {pid}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[1] == str(wire.NETLINK_NETFILTER) and parts[-1] in inodes:
                ports.add(int(parts[2]))
    return frozenset(ports)


class TableWatch:
    """Calls `on_change` (in the event loop) when a stranger touched a table of ours, or may have."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._own: frozenset[int] = frozenset()
        self._netlink = wire.Netlink(wire.NETLINK_NETFILTER, timeout=0)
        self._netlink.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._listening = False

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._netlink.socket.fileno(), self._read)
        self.listen()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(self._netlink.socket.fileno())
        self._netlink.close()

    def own(self, pid: int) -> None:
        """Changes made by this process are ours."""
        self._own = netlink_ports(pid) if pid else frozenset()

    def pause(self) -> None:
        """While the whole is loaded: the kernel would tell of each of 50,000 elements."""
        if self._listening:
            self._netlink.socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _GROUP_NFTABLES)
            self._listening = False

    def listen(self) -> None:
        if not self._listening:
            self._drain()
            self._netlink.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
            self._listening = True

    def _drain(self) -> None:
        while True:
            try:
                os.read(self._netlink.socket.fileno(), 1 << 16)
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
            if self._is_foreign(memoryview(data)):
                self._on_change()

    def _is_foreign(self, data: memoryview) -> bool:
        for kind, _, _, port, body in wire.messages(data):
            if kind >> 8 != _SUBSYSTEM or kind & 0xFF == _NEW_GEN or port in self._own:
                continue
            # the first attribute of every kind of message is the table's name
            if bytes(body[8 : 8 + len(_OURS)]) == _OURS:
                return True
        return False
