"""Plain HTTP for figures: GET of a few fixed paths, nothing else. Everything else of pyswarm speaks TLS."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_core.log import get_logger

log = get_logger("scrape.http")

MAX_HEAD = 16 * 1024  # bytes
PATIENCE = 10.0  # seconds for a whole request
MAX_CLIENTS = 64  # at a time; more are turned away, so that nobody can fill the daemon's table of files


@dataclass(frozen=True, slots=True)
class Page:
    """`make` is called for one request at a time; those that come meanwhile get the same answer, so that however many
    ask, the work is done once. PyswarmError: there is no answer now (503, its sentence as the body)."""

    content_type: str
    make: Callable[[], Awaitable[bytes]]


class Server:
    """`async with await serve(…)`, or `close()`."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._making: dict[str, asyncio.Future[bytes]] = {}
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """OSError."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)

    @property
    def port(self) -> int:
        assert self._server is not None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def close(self) -> None:
        """At once: whoever is being answered is cut off."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        for making in self._making.values():
            making.cancel()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS:
                async with asyncio.timeout(PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is slow, gone, or no HTTP client
        except asyncio.CancelledError:
            pass  # closed; asyncio's streams report a cancelled handler as an error
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        page = self._pages.get(path)
        status, kind = "200 OK", "text/plain; charset=utf-8"
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"Use GET.\n"
        elif page is None:
            status, body = "404 Not Found", f"There is {' and '.join(sorted(self._pages))} here.\n".encode()
        else:
            try:
                kind, body = page.content_type, await self._make(path, page)
            except PyswarmError as error:
                status, kind, body = "503 Service Unavailable", "text/plain; charset=utf-8", f"{error}\n".encode()
            except Exception:
                log.exception("a page cannot be made", path=path)
                status, kind = "500 Internal Server Error", "text/plain; charset=utf-8"
                body = b"This cannot be told because of an error of this program: its log says more.\n"
        lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
        return "\r\n".join((*lines, "", "")).encode() + (b"" if method == "HEAD" else body)

    async def _make(self, path: str, page: Page) -> bytes:
        """One that asks may go away: the others still want the answer."""
        making = self._making.get(path)
        if making is None:
            making = self._making[path] = asyncio.ensure_future(page.make())
            making.add_done_callback(lambda task: self._made(path, task))
        return await asyncio.shield(making)

    def _made(self, path: str, task: asyncio.Future[bytes]) -> None:
        del self._making[path]
        if not task.cancelled():
            task.exception()  # nobody may be left who would look at it


async def serve(address: str, pages: Mapping[str, Page]) -> Server:
    """`address`: HOST:PORT. PreconditionFailed: it cannot be had."""
    host, port = split(address)
    server = Server(pages)
    try:
        await server.start(host, port)
    except OSError as error:
        raise PreconditionFailed(
            f"Metrics cannot be served on {address} ({error.strerror or error}): choose another with --metrics-addr."
        ) from None
    return server


def split(address: str) -> tuple[str, int]:
    """HOST:PORT, or [IPv6]:PORT. ValueError when the port is no number."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def reachable(listen: str, address: str) -> str:
    """HOST:PORT at which other hosts find what listens on `listen` of the host with this address; "" when they cannot,
    because it is off or on loopback."""
    if not listen:
        return ""
    host, port = split(listen)
    if host == "localhost":
        return ""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return listen  # a name
    if found.is_loopback:
        return ""
    return f"{address}:{port}" if found.is_unspecified else listen
