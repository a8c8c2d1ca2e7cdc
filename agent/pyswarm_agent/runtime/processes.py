"""Processes by number, without ever taking a stranger for the one that had the number before: a pidfd is opened first
and what /proc says is checked after, so that the check is about the process that the descriptor names."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# PIDFD_GET_INFO with PIDFD_INFO_EXIT: Linux 6.15 and later tell the exit status of a process that was not our child.
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes)
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO_SIZE = 64
_EXIT_CODE_OFFSET = 60

# Places in /proc/PID/stat, counted after the name.
_DEAD = ("Z", "X")
_START = 19
_EXIT_CODE = 49


def holds_lock(path: Path) -> bool:
    """Whether a process, whoever it is, has locked this file. One that is not there nobody has."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@dataclass(frozen=True, slots=True)
class Process:
    """A process for good: no other ever has both the same number and the same start."""

    pid: int
    started: int  # clock ticks since boot

    def is_alive(self) -> bool:
        fields = _stat(self.pid)
        return bool(fields) and fields[0] not in _DEAD and int(fields[_START]) == self.started

    def is_zombie(self) -> bool:
        return self.zombie_status() is not None

    @contextlib.contextmanager
    def opened(self) -> Iterator[int | None]:
        """A pidfd; None when it is gone and reaped."""
        with opened(self.pid) as fd:
            fields = _stat(self.pid)
            yield fd if fields and int(fields[_START]) == self.started else None

    def zombie_status(self) -> int | None:
        """The wait(2) status while nobody has reaped it yet."""
        fields = _stat(self.pid)
        if not fields or fields[0] not in _DEAD or int(fields[_START]) != self.started:
            return None
        return int(fields[_EXIT_CODE])


def find(pid: int) -> Process | None:
    fields = _stat(pid) if pid > 0 else []
    return Process(pid, int(fields[_START])) if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (which may contain anything): state, ppid, pgrp, session …"""
    try:
        return read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()
    except OSError:
        return []


def read(path: str) -> bytes:
    """A small file of /proc, by the shortest way: a start reads five."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(fd, 65536):
            content += piece
        return content
    finally:
        os.close(fd)


def has_argument(pid: int, argument: str) -> bool:
    """Whether the process was started with this argument."""
    try:
        return argument.encode() in read(f"/proc/{pid}/cmdline").split(b"\0")
    except OSError:
        return False


def with_argument(argument: str) -> list[Process]:
    """All processes of this pid namespace that live and were started with it; not this one."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = [find(pid) for pid in numbers if pid != os.getpid() and has_argument(pid, argument)]
    return [process for process in found if process is not None and process.is_alive()]


def children(pid: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it, or a thread, has ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def read_pid(path: Path) -> int:
    """0 when the file is not there or not (yet) written."""
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def opened(pid: int) -> Iterator[int | None]:
    """A pidfd, or None when there is no such process."""
    try:
        fd = os.pidfd_open(pid) if pid > 0 else None
    except ProcessLookupError:
        fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


async def ended(fd: int) -> None:
    """Returns when the process of this pidfd has ended (reaped or not)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    # A descriptor of our own: two waiters on one number would replace each other's reader.
    own = os.dup(fd)

    def on_readable() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(own, on_readable)
    try:
        await done
    finally:
        loop.remove_reader(own)
        os.close(own)


def send(fd: int, number: int) -> None:
    """A process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


def exit_status(fd: int) -> int | None:
    """The wait(2) status of a process that has ended and was reaped by somebody, where the kernel tells it."""
    info = bytearray(_PIDFD_INFO_SIZE)
    struct.pack_into("=Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("=Q", info, 0)[0] & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("=i", info, _EXIT_CODE_OFFSET)[0])
