"""The names of a task's log files. conmon writes `container.log`; a rotation makes it `container.log.1`, and so on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

NAME = "container.log"


def numbered(folder: Path, number: int) -> Path:
    """0 is the one being written."""
    return folder / (f"{NAME}.{number}" if number else NAME)


def listed(folder: Path) -> Sequence[Path]:
    """Oldest first; only what is there."""
    found: dict[int, Path] = {}
    try:
        entries = list(folder.iterdir())
    except OSError:
        return ()
    for path in entries:
        if path.name == NAME:
            found[0] = path
        elif path.name.startswith(f"{NAME}.") and (suffix := path.name[len(NAME) + 1 :]).isdigit() and int(suffix) > 0:
            found[int(suffix)] = path
    return [found[number] for number in sorted(found, reverse=True)]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Sequence[int]]:
    """Descriptors of the files, oldest first; closed at the end. A rotation renames one after the other, so a name may
    be another file's by the time that it is opened: it counts when all are still so named afterwards."""
    while True:
        with contextlib.ExitStack() as stack:
            descriptors: list[int] = []
            try:
                for path in listed(folder):
                    descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    stack.callback(os.close, descriptors[-1])
                named = [path.stat().st_ino for path in listed(folder)]
            except FileNotFoundError:
                continue
            if [os.fstat(fd).st_ino for fd in descriptors] == named:
                yield descriptors
                return
