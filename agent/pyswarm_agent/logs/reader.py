"""A task's log lines for whoever asks: the last ones, those since a time, and the new ones as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from pyswarm_agent.logs import cri
from pyswarm_agent.logs.cursor import Cursor
from pyswarm_core.v1 import dispatcher_pb2 as wire

POLL = 0.25  # seconds between two looks at a log that is followed
BATCH_BYTES = 256 << 10
BATCH_LINES = 1000
LAST_LINE_LENGTH = 500  # characters; these lines are stored with the task's status


class Logged(Protocol):
    """Of ConmonRuntime."""

    def log_folder(self, task_id: str) -> Path: ...

    def may_print(self, task_id: str) -> bool: ...


class LogReader:
    def __init__(self, runtime: Logged) -> None:
        self._runtime = runtime

    async def last_lines(self, task_id: str, count: int) -> Sequence[str]:
        """What the container printed last, both streams; long lines are cut."""
        found: list[str] = []
        async for batch in self.read(task_id, tail=count):
            found += [line.line[: 4 * LAST_LINE_LENGTH].decode("utf-8", "replace") for line in batch]
        return [line.rstrip("\r")[:LAST_LINE_LENGTH] for line in found[-count:]]

    async def read(
        self, task_id: str, *, tail: int = -1, since: float = 0.0, follow: bool = False
    ) -> AsyncIterator[list[wire.LogLine]]:
        """Batches of lines, oldest first. `tail` -1 is all; `since` in unix seconds. With `follow` it ends when the
        container has ended and all of it was read; without, when all that is there was. No log is no error."""
        cursor = await asyncio.to_thread(Cursor, self._runtime.log_folder(task_id), tail=tail, since=since)
        try:
            while True:
                # Asked before reading: what a container printed before its end is then read after it.
                ended = not follow or not self._runtime.may_print(task_id)
                while cursor.has_unread() and (lines := await asyncio.to_thread(cursor.read)):
                    for batch in _batches(task_id, lines):
                        yield batch
                if ended:
                    break
                await asyncio.sleep(POLL)
            for batch in _batches(task_id, cursor.rest()):
                yield batch
        finally:
            cursor.close()


def _batches(task_id: str, lines: Sequence[cri.Line]) -> list[list[wire.LogLine]]:
    batches: list[list[wire.LogLine]] = []
    size = 0
    for line in lines:
        if not batches or size + len(line.text) > BATCH_BYTES or len(batches[-1]) >= BATCH_LINES:
            batches.append([])
            size = 0
        batches[-1].append(wire.LogLine(task_id=task_id, at=line.at, is_stderr=line.is_stderr, line=line.text))
        size += len(line.text)
    return batches
