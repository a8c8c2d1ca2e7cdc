"""The agent's memory on disk: a small table of (kind, key) → bytes, kept as a log of changes.

What was put survives a `kill -9` at any moment, for it is in the kernel when `put` returns; what `sync` has returned
for survives a power failure too. Each frame of the log is its length, a checksum and a msgpack list of changes that
apply all or not at all; whatever follows the last whole frame was being written when the agent ended, and is cut off.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_core.log import get_logger

log = get_logger("agent.journal")

# The log is rewritten when it has this many bytes and is mostly history.
COMPACT_AT = 4 * 2**20
_HEADER = struct.Struct(">II")
_DECODER = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]])
_ENCODER = msgspec.msgpack.Encoder()

Change = tuple[str, str, bytes | None]  # kind, key, value; None deletes


class JournalFailure(PyswarmError):
    """The disk does not take it (full, read-only, broken)."""

    retryable = True


class Disk:
    """Everything the journal asks of a disk; tests and the simulator have disks that refuse, forget or are memory.

    Errors: OSError."""

    def lock(self, path: Path) -> int:
        """Its descriptor; the folder is made where it is missing. BlockingIOError: somebody else holds it."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise
        return fd

    def open(self, path: Path) -> tuple[int, bytes]:
        """A descriptor to append with, and what is there. The file is made where it is missing."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _sync_folder(path.parent)
        return fd, path.read_bytes()

    def make(self, path: Path) -> int:
        """An empty file, to append to."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def flush(self, fd: int) -> None:
        os.fdatasync(fd)

    async def flush_aside(self, fd: int) -> None:
        """As `flush`, without holding up the event loop. The descriptor may be closed meanwhile."""
        copy = os.dup(fd)
        try:
            await asyncio.to_thread(self.flush, copy)
        finally:
            os.close(copy)

    def replace(self, fd: int, path: Path, target: Path) -> None:
        """`path`, which `fd` is of, takes the place of `target`, for good."""
        os.fsync(fd)
        path.replace(target)
        _sync_folder(target.parent)

    def close(self, fd: int) -> None:
        os.close(fd)


class Journal:
    def __init__(self, path: Path, *, compact_at: int = COMPACT_AT, disk: Disk | None = None) -> None:
        self._path = path
        self._disk = disk or Disk()
        self._compact_at = compact_at
        self._table: dict[str, dict[str, bytes]] = {}
        self._fd = -1
        self._lock_fd = -1
        self._size = 0
        self._live = 0  # bytes of keys and values in the table
        self._written = 0  # changes; see sync
        self._synced = 0
        self._broken = False  # the file lacks changes that the table has
        self._flushing = asyncio.Lock()

    def open(self) -> None:
        """Reads what there is. Raises PreconditionFailed when another agent has it, JournalFailure."""
        try:
            try:
                self._lock_fd = self._disk.lock(self._path.with_suffix(".lock"))
            except BlockingIOError:
                raise PreconditionFailed(
                    f"another agent is using {self._path.parent}: stop it first, or use another data directory"
                ) from None
            self._fd, content = self._disk.open(self._path)
        except OSError as error:
            raise self._failure(error) from error
        self._size = self._replay(content)
        if self._size < len(content):
            log.warning("journal ends in an unfinished frame, cut off", bytes=len(content) - self._size)
            self._disk.truncate(self._fd, self._size)

    def _replay(self, content: bytes) -> int:
        """Returns the length of what is whole."""
        at = 0
        while at + _HEADER.size <= len(content):
            length, checksum = _HEADER.unpack_from(content, at)
            payload = content[at + _HEADER.size : at + _HEADER.size + length]
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            try:
                changes = _DECODER.decode(payload)
            except msgspec.MsgspecError:
                break
            self._apply(changes)
            at += _HEADER.size + length
        return at

    def items(self, kind: str) -> Mapping[str, bytes]:
        return self._table.get(kind, {})

    def get(self, kind: str, key: str = "") -> bytes | None:
        return self._table.get(kind, {}).get(key)

    def put(self, kind: str, key: str, value: bytes) -> None:
        self.write([(kind, key, value)])

    def delete(self, kind: str, key: str) -> None:
        self.write([(kind, key, None)])

    def write(self, changes: Iterable[Change]) -> None:
        """All or none of them survive. Never raises: `sync` tells of a disk that fails, and mends the log if it can."""
        news = [c for c in changes if self._table.get(c[0], {}).get(c[1]) != c[2]]
        if not news:
            return
        self._apply(news)
        self._written += 1
        if self._broken or self._fd < 0:
            self._broken = True
            return
        payload = _ENCODER.encode(news)
        frame = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            self._append(self._fd, frame)
        except OSError as error:
            self._broken = True
            log.error("journal cannot be written", error=error, path=self._path)
            return
        self._size += len(frame)
        if self._size > self._compact_at and self._size > 4 * self._live:
            self._compact()

    async def sync(self) -> None:
        """Returns when everything put before is on the disk. Calls at the same time share one flush.

        Raises JournalFailure."""
        target = self._written
        async with self._flushing:
            if self._broken:
                self._compact()
            if self._broken:
                raise JournalFailure(f"the journal {self._path} cannot be written: free disk space or repair the disk")
            if self._synced >= target:
                return
            upto = self._written
            try:
                # The descriptor may be replaced by a compaction meanwhile, which flushes by itself.
                await self._disk.flush_aside(self._fd)
            except OSError as error:
                raise self._failure(error) from error
            self._synced = max(self._synced, upto)

    def close(self) -> None:
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                self._disk.close(fd)
        self._fd = self._lock_fd = -1

    def _apply(self, changes: Iterable[Change]) -> None:
        for kind, key, value in changes:
            entries = self._table.setdefault(kind, {})
            old = entries.pop(key, None)
            if old is not None:
                self._live -= len(key) + len(old)
            if value is not None:
                entries[key] = value
                self._live += len(key) + len(value)

    def _compact(self) -> None:
        """Writes the table anew beside the log and renames it over it. In the event loop, since nothing may be put
        meanwhile: a few milliseconds, once in several megabytes of changes."""
        changes = [(kind, key, value) for kind, entries in self._table.items() for key, value in entries.items()]
        payload = _ENCODER.encode(changes)
        frame = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        new_path = self._path.with_suffix(".new")
        fd = -1
        try:
            fd = self._disk.make(new_path)
            self._append(fd, frame)
            self._disk.replace(fd, new_path, self._path)
        except OSError as error:
            self._broken = True
            if fd >= 0:
                self._disk.close(fd)
            log.error("journal cannot be rewritten", error=error, path=self._path)
            return
        if self._fd >= 0:
            self._disk.close(self._fd)
        self._fd, self._size, self._broken, self._synced = fd, len(frame), False, self._written

    def _append(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._disk.write(fd, view) :]

    def _failure(self, error: OSError) -> JournalFailure:
        return JournalFailure(f"the journal {self._path} cannot be used: {error.strerror or error}")


def _sync_folder(path: Path) -> None:
    """So that the names in it survive a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
