"""The way into the kernel's nftables: a long-lived `nft -i` for small changes, `nft -f -` for large ones.

`nft -i` takes one line as one transaction and says nothing when it succeeds, so each line is followed by a command with
a known answer. Starting the command costs 15 ms and would be the whole of a change's cost; but a large batch would
leave the long-lived process with 100 MB for ever, so those go to one that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pyswarm_core.errors import PyswarmError

log = logging.getLogger(__name__)

_MARKER = "describe meta mark\n"
_ANSWER = b"meta expression"
# characters of a batch, above which a process of its own is used
LARGE = 65536
# Transactions after which the long-lived process is replaced. None was seen to leak; it costs 15 ms to be sure.
RETIRE_AFTER = 20_000
_ANSWER_LIMIT = 1 << 22
_TIMEOUT = 30.0
# nft -i would write its history into the home folder
_ENV = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "HOME": "/dev/null", "LC_ALL": "C"}


class KernelRefused(PyswarmError):
    """nft did not take a batch; nothing of it is in the kernel. It usually means that the kernel holds something else
    than we think: load the whole again."""

    retryable = True


class Nft:
    """One transaction at a time. `on_shell` is told the pid of each new long-lived process before it changes
    anything."""

    def __init__(self, command: str = "nft", on_shell: Callable[[int], None] = lambda pid: None) -> None:
        self._command = command
        self.on_shell = on_shell
        self._shell: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._done = 0

    async def change(self, line: str) -> None:
        """One line (of at most LARGE characters), one transaction: it is in the kernel when this returns.

        Raises KernelRefused."""
        async with self._lock:
            for last_try in (False, True):
                try:
                    shell = await self._open()
                    async with asyncio.timeout(_TIMEOUT):
                        said = await self._ask(shell, line)
                    break
                except (ConnectionError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                    # Whether the line was carried out is unknown. A repeated one that was is refused, and then the
                    # whole is loaded: so repeating is safe.
                    await self._close()
                    if last_try:
                        raise KernelRefused(
                            "nft ended while it was given a change; is it installed and working?"
                        ) from None
                except asyncio.CancelledError:
                    await self._close()  # its answer would be taken for the next change's
                    raise
            self._done += 1
            if self._done >= RETIRE_AFTER:
                await self._close()
        if said:
            raise KernelRefused(f"nft refused a change: {said[:500]}")

    async def load(self, text: str) -> None:
        """A whole file as one transaction. Raises KernelRefused."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._command,
                "-f",
                "-",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_ENV,
            )
        except FileNotFoundError:
            raise KernelRefused("nft is not installed: the load balancer needs the package nftables") from None
        try:
            _, said = await process.communicate(text.encode())
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise KernelRefused(f"nft refused the ruleset: {said.decode(errors='replace')[:500]}")

    async def close(self) -> None:
        async with self._lock:
            await self._close()

    async def _open(self) -> asyncio.subprocess.Process:
        if self._shell is not None and self._shell.returncode is None:
            return self._shell
        try:
            self._shell = await asyncio.create_subprocess_exec(
                self._command,
                "-i",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_ENV,
                limit=_ANSWER_LIMIT,
            )
        except FileNotFoundError:
            raise KernelRefused("nft is not installed: the load balancer needs the package nftables") from None
        self._done = 0
        async with asyncio.timeout(_TIMEOUT):
            await self._ask(self._shell, "")
        self.on_shell(self._shell.pid)
        return self._shell

    @staticmethod
    async def _ask(shell: asyncio.subprocess.Process, line: str) -> str:
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(f"{line}\n{_MARKER}".encode())
        await shell.stdin.drain()
        said: list[bytes] = []
        while True:
            got = await shell.stdout.readline()
            if not got:
                raise EOFError
            if _ANSWER in got:
                return b"".join(said).decode(errors="replace").strip()
            said.append(got)

    async def _close(self) -> None:
        shell, self._shell = self._shell, None
        if shell is None:
            return
        if shell.stdin is not None:
            shell.stdin.close()
        try:
            async with asyncio.timeout(2):
                await shell.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                shell.kill()
            await shell.wait()
