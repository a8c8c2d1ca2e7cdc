"""A TCP relay on loopback whose connections a test can cut or freeze, while the server behind it lives on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Relay:
    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] = ("127.0.0.1", 0)
        self._flows: set[asyncio.Task[None]] = set()
        self._requests, self._replies = asyncio.Event(), asyncio.Event()
        self.thaw()
        self.connections = 0

    @property
    def endpoint(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self._address)
        self._address = self._server.sockets[0].getsockname()[:2]

    async def cut(self) -> None:
        """Ends all connections and refuses new ones, until `start`."""
        if self._server:
            self._server.close()
            self._server = None
        flows = list(self._flows)
        for flow in flows:
            flow.cancel()
        await asyncio.gather(*flows, return_exceptions=True)

    def freeze(self, *, requests: bool = True, replies: bool = True) -> None:
        """Connections stay, new ones are accepted, and not a byte passes."""
        if requests:
            self._requests.clear()
        if replies:
            self._replies.clear()

    def thaw(self) -> None:
        self._requests.set()
        self._replies.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._flows.add(task)
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
            try:
                there = asyncio.ensure_future(self._pump(reader, there_writer, self._requests))
                back = asyncio.ensure_future(self._pump(there_reader, writer, self._replies))
                try:
                    await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)
            finally:
                there_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._flows.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            await gate.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def relay_to(target: str) -> AsyncIterator[Relay]:
    relay = Relay(target)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.cut()
