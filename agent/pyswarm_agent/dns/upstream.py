"""The host's resolvers, and how they are asked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
MAX_SERVERS = 3
TRY_FOR = 2.0  # seconds for one server; a client gives up after five
_LOOK_AGAIN = 1.0
_SERVFAIL, _REFUSED = 2, 5


class ResolvConf:
    """Servers and search domains of a resolv.conf, read again when the file changes."""

    def __init__(self, path: Path = RESOLV_CONF, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()
        self._search: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        self._look()
        return self._servers

    def search(self) -> tuple[str, ...]:
        self._look()
        return self._search

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked_at < _LOOK_AGAIN:
            return
        self._looked_at = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._servers, self._search = parse(self._path.read_text(errors="replace"))
                self._stamp = stamp
        except OSError:
            self._stamp, self._servers, self._search = None, (), ()


def parse(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(servers, search domains). As resolvers do: the last search or domain line counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) >= 2 and words[0] == "nameserver":
            servers.append(words[1])
        elif len(words) >= 2 and words[0] in ("search", "domain"):
            search = tuple(w.strip(".") for w in words[1:] if w.strip("."))
    return tuple(servers[:MAX_SERVERS]), search


async def ask(
    data: bytes, servers: Sequence[str], *, tcp: bool, port: int = PORT, timeout: float = TRY_FOR
) -> bytes | None:
    """The first good answer; else the last bad one; None when nobody answers. `servers` in order of preference."""
    worst: bytes | None = None
    for server in servers[:MAX_SERVERS]:
        try:
            async with asyncio.timeout(timeout):
                reply = await (_ask_tcp if tcp else _ask_udp)(data, server, port)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            continue
        if len(reply) >= 12 and (reply[3] & 0x0F) not in (_SERVFAIL, _REFUSED):
            return reply
        worst = reply
    return worst


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, number: bytes) -> None:
        self._number = number
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._number and len(data) >= 12 and not self.reply.done():
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _ask_udp(data: bytes, server: str, port: int) -> bytes:
    """From a port and with a number that nobody can guess, since the asker's own are its tasks' business."""
    number = secrets.token_bytes(2)
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_datagram_endpoint(lambda: _Asking(number), remote_addr=(server, port))
    try:
        transport.sendto(number + data[2:])
        reply = await asking.reply
    finally:
        transport.close()
        asking.reply.cancel()
    return data[:2] + reply[2:]


async def _ask_tcp(data: bytes, server: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
