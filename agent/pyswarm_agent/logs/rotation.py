"""Keeps log files within their limits. conmon itself could only throw the old lines away.

A full file is renamed and conmon told to open a new one: until it does, it goes on writing into the renamed one, so
that no line is lost. While the agent is down nothing is rotated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyswarm_agent.logs import files
from pyswarm_core.log import get_logger

PERIOD = 2.0  # seconds between two looks at a file that grows slowly
SHORTEST_PERIOD = 0.25
_REOPEN = b"2 0 0\n"  # conmon's word on its control fifo

log = get_logger("agent.logs")


@dataclass(frozen=True, slots=True)
class Rotated:
    """A log with limits. `max_size` bytes a file; `max_file` files in all, the one being written included."""

    task_id: str
    folder: Path
    ctl: Path
    max_size: int
    max_file: int


class LogRotator:
    """`logs` lists the logs that grow. `run` until cancelled; `rotate_full` is one round."""

    def __init__(self, logs: Callable[[], Sequence[Rotated]]) -> None:
        self._logs = logs
        self._sizes: dict[str, int] = {}

    async def run(self) -> None:
        period = SHORTEST_PERIOD
        while True:
            await asyncio.sleep(period)
            try:
                period = self.rotate_full(period)
            except Exception:
                log.exception("rotation failed")
                period = PERIOD

    def rotate_full(self, period: float) -> float:
        """Rotates what is over its size; returns when to look again, by how fast the files grew in the last period."""
        sizes: dict[str, int] = {}
        soonest = PERIOD
        for each in self._logs():
            try:
                size = files.numbered(each.folder, 0).stat().st_size
            except FileNotFoundError:
                continue
            if size >= each.max_size:
                rotate(each)
                size = 0
                soonest = SHORTEST_PERIOD
            elif (grown := size - self._sizes.get(each.task_id, size)) > 0:
                soonest = min(soonest, (each.max_size - size) * period / grown)
            sizes[each.task_id] = size
        self._sizes = sizes
        return max(SHORTEST_PERIOD, soonest)


def rotate(each: Rotated) -> None:
    """Nothing is renamed when conmon is not there to open a new file."""
    try:
        ctl = os.open(each.ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no fifo, or nobody reads it
        return
    try:
        oldest = max(1, each.max_file) - 1
        for path in files.listed(each.folder):
            number = int(path.suffix[1:]) if path.name != files.NAME else 0
            if number >= oldest:
                # With a single file allowed, what is full goes; conmon's descriptor keeps it until it reopens.
                path.unlink(missing_ok=True)
            else:
                path.replace(files.numbered(each.folder, number + 1))
        with contextlib.suppress(BlockingIOError):
            os.write(ctl, _REOPEN)
    finally:
        os.close(ctl)
    log.debug("log rotated", task=each.task_id)
