"""A small web server that does what a service has to do so that an update loses nothing.

On SIGTERM it goes on answering, but says `Connection: close` with each answer, and does not close idle connections
itself: a client might just be sending its next request on one. By the time the signal comes, nothing new is sent here.

GET /            who answered, in which version, and the client's address as seen here
GET /stream?seconds=S   one numbered line every 50 ms for S seconds
GET /healthz     ok
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import urllib.parse

PORT = int(os.environ.get("PORT", "80"))
LINGER = float(os.environ.get("LINGER", "8"))  # seconds; below the grace that it gets (10 by default)
PAGE = pathlib.Path(__file__).with_name("page.txt").read_text().strip()


class Server:
    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.discard(task)
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        _, target, *_ = head.split(" ", 2)
        path, _, query = target.partition("?")
        wants_close = "connection: close" in head.lower() or self.leaving.is_set()
        connection = "close" if wants_close else "keep-alive"
        if path == "/stream":
            seconds = float(urllib.parse.parse_qs(query).get("seconds", ["20"])[0])
            lines = int(seconds / 0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
            for number in range(lines):
                writer.write(f"{number} of {lines} from {socket.gethostname()}\n".encode())
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(b"end\n")
            await writer.drain()
            return False
        client = writer.get_extra_info("peername")[0]
        body = "ok\n" if path == "/healthz" else f"{PAGE} from {socket.gethostname()}, your address is {client}\n"
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {connection}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        return not wants_close

    async def run(self) -> None:
        server = await asyncio.start_server(self.serve, "0.0.0.0", PORT, backlog=1024)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.leaving.set)
        print(f"{PAGE} listens on port {PORT}", flush=True)
        await self.leaving.wait()
        print("asked to stop: answering with 'Connection: close' from here on", flush=True)
        if self.connections:
            await asyncio.wait(self.connections, timeout=LINGER)
        server.close()
        for task in self.connections:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(Server().run())
