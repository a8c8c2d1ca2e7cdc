"""Getting a picture onto stderr: redrawn in place on a terminal; elsewhere as plain lines, each when it changes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Protocol, TextIO

from pyswarm_cli.progress.view import Picture

MANY = 50  # slots; with more, plain output shows the whole and what went wrong


class Screen(Protocol):
    def show(self, picture: Picture) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""
        ...


class Silent:
    def show(self, picture: Picture) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class Plain:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: dict[str, str] = {}

    def show(self, picture: Picture) -> None:
        self._print("overall", picture.overall)
        for slot in picture.slots:
            if len(picture.slots) <= MANY or (slot.note and not slot.done):
                self._print(slot.name, slot.line())
        if picture.verify:
            self._print("verify", picture.verify)

    def say(self, line: str) -> None:
        self._out.write(f"{line}\n")
        self._out.flush()

    def _print(self, key: str, line: str) -> None:
        if self._last.get(key) != line:
            self._last[key] = line
            self.say(line)


class Terminal:
    """Rewrites its own lines; whatever was printed before stays above."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn: list[str] = []

    def show(self, picture: Picture) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in fit(picture, rows - 2)]
        if lines != self._drawn:
            self._out.write(self._erase() + "".join(f"{line}\n" for line in lines))
            self._out.flush()
            self._drawn = lines

    def say(self, line: str) -> None:
        """Below the picture, which is then left as it is."""
        self._drawn = []
        self._out.write(f"{line}\n")
        self._out.flush()

    def _erase(self) -> str:
        return f"\x1b[{len(self._drawn)}A\r\x1b[J" if self._drawn else ""


def fit(picture: Picture, rows: int) -> Sequence[str]:
    """The lines, or those of the slots that still have something to do, so that they fit."""
    lines = picture.lines
    if len(lines) <= rows:
        return lines
    room = max(1, rows - 3)
    busy = [slot for slot in picture.slots if not slot.done][:room]
    hidden = len(picture.slots) - len(busy)
    return [
        picture.overall,
        *(slot.line() for slot in busy),
        f"… and {hidden} more",
        *([picture.verify] if picture.verify else []),
    ]


def screen_for(out: TextIO, quiet: bool) -> Screen:
    if quiet:
        return Silent()
    return Terminal(out) if out.isatty() else Plain(out)
