"""Runs a program and keeps the end of what it prints.

Not asyncio's own pipes: those wait for the end of the output, which does not come while a process that the program left
behind (a container's, say) holds it open. Here the program's end is the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

KEEP = 16 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Done:
    code: int  # negative: killed by that signal
    output: str  # standard output and error together


async def run(
    argv: Sequence[str],
    *,
    timeout: float,
    pass_fds: Sequence[int] = (),
    keep: int = KEEP,
    env: Mapping[str, str] | None = None,
    before_kill: Callable[[], Awaitable[None]] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Done:
    """TimeoutError after `timeout` seconds: the program is killed then, and so it is when the caller is cancelled;
    before that, `before_kill` is awaited. OSError: it cannot be started. `on_output` gets each piece as it comes."""
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    tail = bytearray()

    def on_readable() -> bool:
        """False when there is no more for now."""
        try:
            piece = os.read(read_end, 65536)
        except BlockingIOError:
            return False
        if not piece:
            loop.remove_reader(read_end)
            return False
        tail.extend(piece)
        del tail[:-keep]
        if on_output is not None:
            on_output(piece)
        return True

    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=pass_fds,
                env=env,
            )
        finally:
            os.close(write_end)
        loop.add_reader(read_end, on_readable)
        try:
            async with asyncio.timeout(timeout):
                code = await process.wait()
        except BaseException:
            if before_kill is not None:
                await before_kill()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        while on_readable():
            pass
    finally:
        loop.remove_reader(read_end)
        os.close(read_end)
    return Done(code, tail.decode("utf-8", "replace"))
