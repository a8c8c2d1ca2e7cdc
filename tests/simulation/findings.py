"""What must never happen, and did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.simulation.trace import Trace
from tests.simulation.virtual import world_time


@dataclass(frozen=True, slots=True)
class Finding:
    """`invariant`: its name. `at`: simulated seconds. `story`: the last events of the objects concerned."""

    invariant: str
    text: str
    at: float
    story: tuple[str, ...]


class Findings:
    """Only the first counts: what follows may follow from it."""

    def __init__(self, trace: Trace) -> None:
        self.first: Finding | None = None
        self.found = asyncio.Event()
        self._trace = trace

    def add(self, invariant: str, text: str, *about: str) -> None:
        if self.first is None:
            now = world_time()
            self._trace.add(f"VIOLATION of: {invariant}: {text}", *about)
            self.first = Finding(invariant, text, now, tuple(self._trace.story(about)))
            self.found.set()
