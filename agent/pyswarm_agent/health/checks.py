"""One look at a task: by a command inside it, by HTTP or by TCP from the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.network.inputs import GATEWAY
from pyswarm_core.v1 import spec_pb2 as spec

MAX_OUTPUT = 300  # characters of what a failed probe said, in a status
_BIND_ADDRESS_NO_PORT = 24  # the port is chosen at connect, so that one may be used towards many tasks
_HEAD = 64 * 1024  # bytes: a longer HTTP head is no answer


@dataclass(frozen=True, slots=True)
class Result:
    passed: bool
    output: str = ""


class Executor(Protocol):
    """Of `interfaces.Runtime`."""

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]: ...


async def check(probe: spec.Probe, task_id: str, address: str, timeout: float, executor: Executor) -> Result:
    """Never raises but for cancellation: what goes wrong is the probe's result. `timeout` in seconds."""
    kind = probe.WhichOneof("check")
    try:
        if kind == "command":
            code, output = await executor.execute(task_id, list(probe.command.values), timeout)
            return Result(code == 0, _tidy(output) or f"exit code {code}")
        async with asyncio.timeout(timeout):
            if kind == "http":
                return await _http(address, probe.http.port, probe.http.path or "/")
            return await _tcp(address, probe.tcp.port)
    except TimeoutError:
        return Result(False, f"no answer within {timeout:g} s")
    except ContainerFailure as error:
        return Result(False, _tidy(str(error)))
    except OSError as error:
        port = probe.http.port if kind == "http" else probe.tcp.port
        return Result(False, f"{address}:{port}: {os.strerror(error.errno) if error.errno else error}")


async def _connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """From the address that isolation lets through and drains do not count; from any on a host that has it not yet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((GATEWAY, 0))
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        return await asyncio.open_connection(sock=sock, limit=_HEAD)
    except BaseException:
        sock.close()
        raise


async def _tcp(address: str, port: int) -> Result:
    _, writer = await _connect(address, port)
    writer.close()
    return Result(True)


async def _http(address: str, port: int, path: str) -> Result:
    """Passed: a status from 200 to 399."""
    reader, writer = await _connect(address, port)
    try:
        target = path if path.startswith("/") else f"/{path}"
        head = f"GET {target} HTTP/1.1\r\nHost: {address}:{port}\r\n"
        writer.write(f"{head}User-Agent: pyswarm-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").strip()
        parts = line.split(None, 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdigit():
            return Result(False, "the answer is not HTTP" if line else "the connection was closed without an answer")
        if 200 <= int(parts[1]) < 400:
            return Result(True)
        return Result(False, _tidy(f"GET {target}: {' '.join(parts[1:])}"))
    except (ValueError, asyncio.IncompleteReadError):
        return Result(False, "the answer is not HTTP")
    finally:
        # Reset rather than left in TIME_WAIT or with unread data: a probe leaves nothing behind.
        writer.transport.abort()


def _tidy(output: str) -> str:
    """The end of it, on one line."""
    text = " ".join(output.split())
    return text if len(text) <= MAX_OUTPUT else "…" + text[-MAX_OUTPUT:]
