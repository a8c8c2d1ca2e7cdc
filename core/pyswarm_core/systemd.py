"""What a daemon tells systemd (sd_notify): that it is ready, and, again and again, that its loop turns.

Nothing happens where systemd did not start the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    address: str  # of systemd's socket; "" = it does not listen
    period: (
        float | None
    )  # seconds between two signs of life: half of what systemd allows. None: it does not ask for any

    @classmethod
    def take(cls) -> Notifier:
        """Out of the environment: what the daemon starts must not speak in its name. An OCI runtime that finds the
        socket's name, for one, waits for the container to use it."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        allowed = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        is_ours = allowed.isdigit() and int(allowed) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(allowed) / 2_000_000 if is_ours else None)

    def notify(self, state: str) -> None:
        """READY=1, STOPPING=1, STATUS=… A socket that does not take it is no reason to fail."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.connect(address)
            sock.send(state.encode())

    async def keep_alive(self) -> None:
        """Says that we are ready, then that we live, for ever. On the daemon's own loop: when that hangs, this does."""
        self.notify("READY=1")
        try:
            while self.period is not None:
                self.notify("WATCHDOG=1")
                await asyncio.sleep(self.period)
            await asyncio.Event().wait()
        finally:
            self.notify("STOPPING=1")
