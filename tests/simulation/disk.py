"""A host's disk, as the journal sees it. A process that is killed leaves what it has written; a host that loses power
keeps what was flushed, and of the rest as much as the head had got to, which may end in the middle of a write."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from pathlib import Path

from tests.simulation.virtual import Party

from pyswarm_agent.journal import Disk


class _File:
    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.flushed = len(content)


class HostDisk:
    """What is on it, whoever runs."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.files: dict[Path, _File] = {}
        self.lock: Party | None = None
        self.is_full = False
        self.lacks = False  # what an agent has put in its journal, and was refused
        self.slow = 0.0  # the longest that a flush takes more, in seconds

    def lose_power(self) -> None:
        for file in self.files.values():
            unsure = len(file.content) - file.flushed
            if unsure > 0:
                del file.content[file.flushed + self._rng.randint(0, unsure) :]
            file.flushed = len(file.content)

    def flush_time(self) -> float:
        return 0.001 + 0.003 * self._rng.random() + self.slow * self._rng.random()


class PartyDisk(Disk):
    """Of one life of an agent. `before_write`: called at each write point; it may kill the party."""

    def __init__(self, disk: HostDisk, party: Party) -> None:
        self._disk = disk
        self._party = party
        self._open: dict[int, _File] = {}
        self._next = 3
        self.before_write: Callable[[], None] = lambda: None

    def lock(self, path: Path) -> int:
        holder = self._disk.lock
        if holder is not None and holder is not self._party and holder.alive:
            raise BlockingIOError
        self._disk.lock = self._party
        return self._opened(_File())

    def open(self, path: Path) -> tuple[int, bytes]:
        file = self._disk.files.setdefault(path, _File())
        return self._opened(file), bytes(file.content)

    def make(self, path: Path) -> int:
        file = self._disk.files[path] = _File()
        return self._opened(file)

    def write(self, fd: int, data: memoryview) -> int:
        self.before_write()
        if self._party.alive:
            if self._disk.is_full:
                self._disk.lacks = True
                raise OSError(errno.ENOSPC, "No space left on device")
            self._open[fd].content += data
        return len(data)

    def truncate(self, fd: int, size: int) -> None:
        if self._party.alive:
            del self._open[fd].content[size:]

    def flush(self, fd: int) -> None:
        if self._party.alive:
            file = self._open[fd]
            file.flushed = len(file.content)

    async def flush_aside(self, fd: int) -> None:
        file = self._open[fd]
        upto = len(file.content)
        await asyncio.sleep(self._disk.flush_time())
        self._party.check()
        file.flushed = max(file.flushed, min(upto, len(file.content)))

    def replace(self, fd: int, path: Path, target: Path) -> None:
        self.before_write()
        if self._party.alive:
            self.flush(fd)
            self._disk.files[target] = self._disk.files.pop(path)
            self._disk.lacks = False

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)

    def _opened(self, file: _File) -> int:
        self._next += 1
        self._open[self._next] = file
        return self._next
