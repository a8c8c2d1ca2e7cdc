"""What systemd hears: a socket stands in for it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from pyswarm_core.systemd import Notifier


async def _heard(path: str, count: int) -> list[str]:
    """The first `count` messages, then the last one, from a daemon that is stopped after them."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setblocking(False)
        listening.bind("\0" + path[1:] if path.startswith("@") else path)
        daemon = asyncio.create_task(Notifier.take().keep_alive())
        heard = [(await asyncio.wait_for(loop.sock_recv(listening, 100), 5)).decode() for _ in range(count)]
        daemon.cancel()
        await asyncio.gather(daemon, return_exceptions=True)
        while heard[-1] != "STOPPING=1":
            heard.append((await asyncio.wait_for(loop.sock_recv(listening, 100), 5)).decode())
        return heard


@pytest.mark.parametrize("is_abstract", [False, True])
async def test_ready_then_alive_then_stopping(
    is_abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"@pyswarm-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    heard = await _heard(path, 4)
    assert heard[0] == "READY=1"
    assert set(heard[1:-1]) == {"WATCHDOG=1"} and len(heard) >= 5
    assert heard[-1] == "STOPPING=1"


async def test_without_a_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert await _heard(str(tmp_path / "notify"), 1) == ["READY=1", "STOPPING=1"]


def test_what_is_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notifier = Notifier.take()
    assert notifier.period is None
    notifier.notify("READY=1")


def test_children_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    Notifier.take()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    assert Notifier.take() == Notifier("", None)
