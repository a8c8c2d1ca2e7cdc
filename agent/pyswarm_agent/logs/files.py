"""The names of a task's log files. conmon writes `container.log`; a rotation makes it `container.log.1`, and so on."""

from __future__ import annotations

from collections.abc import Sequence
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
