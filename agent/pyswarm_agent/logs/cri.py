"""The CRI log format: `2026-11-24T14:11:22.631523957+00:00 stdout F text`. Pure.

A line longer than the writer's buffer comes in several, tagged P, the last one F.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

_LINE = re.compile(rb"(\S+) (stdout|stderr) ([PF])(?::\S*)? ?(.*)", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")

# A program that never ends its line must not fill the memory: such a line is cut into pieces of this size.
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    at: float  # unix seconds, of the line's first piece
    is_stderr: bool
    text: bytes  # without the newline


@dataclass(frozen=True, slots=True)
class Piece:
    at: float
    is_stderr: bool
    text: bytes
    is_last: bool


def parse(raw: bytes) -> Piece | None:
    """One line of the file, without its newline. None for what is no such line (a write cut short by a full disk)."""
    found = _LINE.fullmatch(raw)
    if found is None:
        return None
    at = parse_time(found[1].decode("ascii", "replace"))
    return None if at is None else Piece(at, found[2] == b"stderr", found[4], found[3] == b"F")


def parse_time(text: str) -> float | None:
    """RFC 3339 with any number of digits, to unix seconds."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    zone = "+00:00" if found[3] == "Z" else found[3]
    whole = datetime.fromisoformat(found[1] + zone).timestamp()
    return whole + (int(found[2]) / 10 ** len(found[2]) if found[2] else 0.0)


class Joiner:
    """Pieces → whole lines, the two streams apart. A line that is never ended comes out by `rest`."""

    def __init__(self) -> None:
        self._open: dict[bool, tuple[float, bytearray]] = {}

    def add(self, piece: Piece) -> Line | None:
        at, text = self._open.pop(piece.is_stderr, (piece.at, bytearray()))
        text += piece.text
        if piece.is_last or len(text) >= LONGEST:
            return Line(at, piece.is_stderr, bytes(text))
        self._open[piece.is_stderr] = (at, text)
        return None

    def rest(self) -> Iterator[Line]:
        for is_stderr, (at, text) in sorted(self._open.items(), key=lambda item: item[1][0]):
            yield Line(at, is_stderr, bytes(text))
        self._open.clear()
