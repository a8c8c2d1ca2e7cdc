"""Reads one task's log forward, from file to file, through rotations. Blocking: for a thread.

At a file's end the next newer one is looked for. It exists only after conmon has let go of this one, so what this one
holds by then is all.
"""

from __future__ import annotations

import os
from itertools import dropwhile
from pathlib import Path

from pyswarm_agent.logs import cri, files

BLOCK = 256 << 10  # bytes read at once


class Cursor:
    """`tail`: begin so that this many lines come (-1: all); `since`: leave out lines before this time. To be closed."""

    def __init__(self, folder: Path, *, tail: int = -1, since: float = 0.0) -> None:
        self._folder = folder
        self._since = since
        self._joiner = cri.Joiner()
        self._buffer = b""
        self._fd = -1
        self._start(tail)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self) -> list[cri.Line]:
        """The next lines; empty when there are none for now."""
        while True:
            if self._fd < 0 and not self._open_oldest():
                return []
            if not (block := os.read(self._fd, BLOCK)):
                if (newer := self._newer()) < 0:
                    return []
                if block := os.read(self._fd, BLOCK):
                    os.close(newer)
                else:
                    os.close(self._fd)
                    self._fd = newer
                    # The last write of a full disk may have been cut short.
                    self._buffer = b""
                    continue
            if lines := self._lines(block):
                return lines

    def rest(self) -> list[cri.Line]:
        """Lines that were never ended; to be asked for when nothing more will come."""
        return [line for line in self._joiner.rest() if line.at >= self._since]

    def has_unread(self) -> bool:
        """Cheap enough to be asked four times a second."""
        if self._fd < 0:
            return bool(files.listed(self._folder))
        if os.fstat(self._fd).st_size > os.lseek(self._fd, 0, os.SEEK_CUR):
            return True
        if (newer := self._newer()) < 0:
            return False
        os.close(newer)
        return True

    def _lines(self, block: bytes) -> list[cri.Line]:
        *raw, self._buffer = (self._buffer + block).split(b"\n")
        found = []
        for each in raw:
            piece = cri.parse(each)
            line = self._joiner.add(piece) if piece is not None else None
            if line is not None and line.at >= self._since:
                found.append(line)
        return found

    def _start(self, tail: int) -> None:
        with files.opened(self._folder) as opened:
            # What was last written before `since` has nothing of interest.
            recent = list(dropwhile(lambda fd: os.fstat(fd).st_mtime < self._since, opened))
            if not recent:
                return
            chosen, offset = recent[0], 0
            if tail >= 0:
                wanted = tail
                for chosen in reversed(recent):
                    found, offset = _find_tail(chosen, wanted)
                    wanted -= found
                    if wanted <= 0:
                        break
            self._fd = os.dup(chosen)
            os.lseek(self._fd, offset, os.SEEK_SET)

    def _open_oldest(self) -> bool:
        with files.opened(self._folder) as opened:
            if opened:
                self._fd = os.dup(opened[0])
        return bool(opened)

    def _newer(self) -> int:
        """A descriptor of the file after this one, to be closed; -1 when this is the newest."""
        own = os.fstat(self._fd).st_ino
        with files.opened(self._folder) as opened:
            inodes = [os.fstat(fd).st_ino for fd in opened]
            if own in inodes:
                after = opened[inodes.index(own) + 1 :]
            else:
                after = opened if os.fstat(self._fd).st_nlink == 0 else []  # 0: rotated away
            return os.dup(after[0]) if after else -1


def _find_tail(fd: int, wanted: int) -> tuple[int, int]:
    """(how many of `wanted` whole lines the file's end has, where the first of them begins)."""
    position = os.lseek(fd, 0, os.SEEK_END)
    if wanted <= 0:
        return 0, position
    rest = b""
    found = 0
    begin = position  # of the oldest line that was counted, with its pieces
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        content = os.pread(fd, size, position) + rest
        first, *whole = content.split(b"\n")
        offset = position + len(content)
        for raw in reversed(whole):
            offset -= len(raw)
            piece = cri.parse(raw)
            if piece is not None and piece.is_last:
                if found == wanted:
                    return found, begin
                found += 1
            begin = offset
            offset -= 1  # the newline before it
        rest = first
    piece = cri.parse(rest)
    if piece is not None and piece.is_last:
        if found == wanted:
            return found, begin
        found += 1
    return found, 0
