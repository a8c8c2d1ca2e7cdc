"""Looks whether a task listens on its ports, without a connection to it: the kernel is asked for the socket that would
take one (sock_diag), in the task's network namespace.

/proc/PID/net/tcp tells the same, but walks the whole host's table of connections for it: 10 ms a look, where this takes
10 µs. The descriptor is closed when the answer is known: a task that runs costs nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from pyswarm_agent.network import namespaces
from pyswarm_agent.runtime import processes
from pyswarm_agent.tasks.listens import LONGEST, SURVIVES, Listens
from pyswarm_core.log import get_logger
from pyswarm_proxy.netlink import wire

log = get_logger("agent.health")

FIRST_PAUSE, GROWTH, LAST_PAUSE = 0.01, 1.5, 0.2  # seconds between two looks

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_LISTEN = 1 << 10
# family, protocol, extensions, states; then a socket's id: ports, addresses, device, cookie (all ones: any)
_QUESTION = struct.Struct("=BBBxI")
_NO_ONE = socket.inet_aton("0.0.0.0") + b"\0" * 12
_ANY_SOCKET = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)


class Sockets(Protocol):
    """Of one network namespace. Errors are OSError."""

    def takes(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port would be taken."""
        ...

    def close(self) -> None: ...


class Living(Protocol):
    """`processes.Process` is the real one."""

    def is_alive(self) -> bool: ...


class KernelSockets:
    """Of the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._netlink = wire.Netlink(_NETLINK_SOCK_DIAG)

    def takes(self, address: str, port: int) -> bool:
        local = socket.inet_aton(address) + b"\0" * 12
        return self._ask(_LISTEN, struct.pack(">HH", port, 0) + local + _NO_ONE + _ANY_SOCKET) is not None

    def check(self) -> None:
        """OSError when this kernel cannot tell: a question about no state at all has an answer, an empty one."""
        body = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0) + b"\0" * 4 + 2 * _NO_ONE + _ANY_SOCKET
        self._netlink.dump(_SOCK_DIAG_BY_FAMILY, body)

    def _ask(self, states: int, socket_id: bytes) -> tuple[int, bytes] | None:
        body = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, states) + socket_id
        return self._netlink.ask(_SOCK_DIAG_BY_FAMILY, body)

    def close(self) -> None:
        self._netlink.close()


async def sockets_in(netns: Path, threads: namespaces.Threads) -> Sockets:
    """Raises OSError."""

    def open_there() -> KernelSockets:
        namespaces.enter(netns)
        found = KernelSockets()
        try:
            found.check()
        except OSError:
            found.close()
            raise
        return found

    return await threads.run(open_there)


class Watching:
    def __init__(self, work: asyncio.Task[None]) -> None:
        self._work = work

    def stop(self) -> None:
        self._work.cancel()

    @property
    def is_over(self) -> bool:
        return self._work.done()


class PortWatch:
    def __init__(
        self,
        sockets: Callable[[str], Awaitable[Sockets]],
        clock: Callable[[], float],
        find: Callable[[int], Living | None] = processes.find,
    ) -> None:
        """`sockets`: of a task's network namespace; OSError when they cannot be seen. `clock`: unix seconds."""
        self._sockets = sockets
        self._clock = clock
        self._find = find

    def start(
        self,
        task_id: str,
        pid: int,
        addresses: Sequence[str],
        listens: Listens,
        until: float,
        report: Callable[[tuple[int, ...]], None],
    ) -> Watching:
        """Reports once, the ports that are missing: none, as soon as it listens, or what is still missing `until` (unix
        seconds), if the process `pid` lives then. One that does not is somebody else's to report."""
        # The wall clock may be set meanwhile; the longest time stays the longest.
        seconds = min(LONGEST, max(0.0, until - self._clock()))
        return Watching(asyncio.create_task(self._watch(task_id, pid, addresses, listens, seconds, report)))

    async def _watch(
        self,
        task_id: str,
        pid: int,
        addresses: Sequence[str],
        listens: Listens,
        seconds: float,
        report: Callable[[tuple[int, ...]], None],
    ) -> None:
        process = self._find(pid)
        missing: tuple[int, ...] = ()
        if listens.ports:
            try:
                missing = await self._missing(await self._sockets(task_id), addresses, listens, seconds)
            except OSError as error:
                log.warning("whether a task listens cannot be seen", task=task_id, error=error)
                await asyncio.sleep(min(seconds, SURVIVES))
        else:
            await asyncio.sleep(seconds)
        if process is not None and process.is_alive():
            report(missing)

    @staticmethod
    async def _missing(sockets: Sockets, addresses: Sequence[str], listens: Listens, seconds: float) -> tuple[int, ...]:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + seconds, FIRST_PAUSE
        try:
            while True:
                there = {port for port in listens.ports if _is_taken(sockets, addresses, port)}
                missing = listens.missing(there)
                left = deadline - loop.time()
                if not missing or left <= 0:
                    return missing
                await asyncio.sleep(min(pause, left))
                pause = min(pause * GROWTH, LAST_PAUSE)
        finally:
            sockets.close()


def _is_taken(sockets: Sockets, addresses: Iterable[str], port: int) -> bool:
    return any(sockets.takes(address, port) for address in addresses)
