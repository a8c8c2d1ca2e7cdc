"""What a daemon tells systemd (sd_notify): that it is ready, and, again and again, that its loop turns.

Nothing happens where systemd did not start the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(state: str) -> None:
    """READY=1, STOPPING=1, STATUS=… A socket that does not take it is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.send(state.encode())


def watchdog_period() -> float | None:
    """Seconds between two signs of life: half of what systemd allows. None: it does not ask for any."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdigit() or not int(allowed) or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000


async def keep_alive() -> None:
    """Says that we are ready, then that we live, for ever. On the daemon's own loop: when that hangs, so does this."""
    notify("READY=1")
    period = watchdog_period()
    try:
        while period is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(period)
        await asyncio.Event().wait()
    finally:
        notify("STOPPING=1")
