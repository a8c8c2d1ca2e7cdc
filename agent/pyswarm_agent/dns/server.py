"""The name server of this host's tasks: UDP and TCP on one link-local address."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Coroutine, Sequence

from dnslib import RCODE

from pyswarm_agent.dns.answer import Forward, answer, failure, truncated
from pyswarm_agent.dns.table import Table
from pyswarm_agent.dns.upstream import PORT, ask
from pyswarm_agent.network.inputs import GATEWAY, NetworkInputs
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.log import get_logger

log = get_logger("agent.dns")

MAX_FORWARDS = 1000  # at a time; more are dropped, and their askers ask again
TCP_IDLE = 10.0  # seconds without a question
_IP_FREEBIND = 15  # the network part may give the address to the host after the sockets are bound


class DnsServer:
    def __init__(
        self,
        servers: Callable[[], Sequence[str]],
        address: str = GATEWAY,
        port: int = PORT,
        *,
        upstream_port: int = PORT,
        is_host: Callable[[str], bool] | None = None,
    ) -> None:
        """`servers`: the host's resolvers now. `is_host`: is this source address the host itself."""
        self._servers = servers
        self._address = address
        self._port = port
        self._upstream_port = upstream_port
        self._is_host = is_host or (lambda source: source == address)
        self._table = Table()
        self._rng = random.Random()
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._work: set[asyncio.Task[None]] = set()
        self.queries = 0
        self.forwards = 0

    def update(self, inputs: NetworkInputs) -> None:
        self._table.update(inputs)

    async def start(self) -> int:
        """Returns the port. Raises PreconditionFailed when the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            udp = _socket(socket.SOCK_DGRAM, self._address, self._port)
            port: int = udp.getsockname()[1]
            tcp = _socket(socket.SOCK_STREAM, self._address, port)
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            self._tcp = await asyncio.start_server(self._serve_tcp, sock=tcp)
        except OSError as error:
            raise PreconditionFailed(
                f"the tasks' name server cannot listen on {self._address}:{self._port} ({error.strerror}): "
                "end what listens there"
            ) from error
        return port

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    # ---- inside ----

    def received(self, data: bytes, source: tuple[str, int]) -> None:
        result = self._answer(data, source[0], tcp=False)
        if isinstance(result, bytes):
            self._send(result, source)
        elif isinstance(result, Forward) and len(self._work) < MAX_FORWARDS:
            self._spawn(self._forward_udp(data, result, source))

    def _answer(self, data: bytes, source: str, *, tcp: bool) -> bytes | Forward | None:
        self.queries += 1
        scope = self._table.scope(source, is_host=self._is_host(source))
        try:
            return answer(data, self._table, scope, self._rng, tcp=tcp)
        except Exception:  # one odd question must not end the name server
            log.exception("a question could not be answered", source=source)
            return failure(data, RCODE.SERVFAIL)

    async def _forward_udp(self, data: bytes, forward: Forward, source: tuple[str, int]) -> None:
        reply = await self._forward(data, forward, tcp=False)
        if reply is not None:
            self._send(truncated(data, reply), source)

    async def _forward(self, data: bytes, forward: Forward, *, tcp: bool) -> bytes | None:
        self.forwards += 1
        servers = [s for s in forward.servers or self._servers() if s != self._address]
        reply = await ask(data, servers, tcp=tcp, port=self._upstream_port) if servers else None
        if reply is None:
            return failure(data, RCODE.SERVFAIL if servers or not forward.single else RCODE.NXDOMAIN)
        return reply

    def _send(self, data: bytes, source: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, source)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                result = self._answer(data, source, tcp=True)
                if isinstance(result, Forward):
                    result = await self._forward(data, result, tcp=True)
                if result is None:
                    return
                writer.write(len(result).to_bytes(2, "big") + result)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.received(data, addr)


def _socket(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except BaseException:
        made.close()
        raise
    return made
