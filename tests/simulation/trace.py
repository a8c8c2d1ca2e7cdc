"""What happened, in order: hashed, so that two runs can be compared, and kept for a while, to tell a story."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable

from tests.simulation.virtual import world_time

KEPT = 60_000  # events


class Trace:
    def __init__(self, *, keep: int = KEPT) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._events: deque[tuple[float, str, tuple[str, ...]]] = deque(maxlen=keep)
        self.count = 0

    def add(self, text: str, *about: str) -> None:
        """`about`: ids of the objects that this is part of the story of."""
        now = world_time()
        self.count += 1
        self._hash.update(f"{now:.6f} {text} {' '.join(about)}\n".encode())
        self._events.append((now, text, about))

    def digest(self) -> str:
        return self._hash.copy().hexdigest()

    def story(self, about: Iterable[str], count: int = 40) -> list[str]:
        """The last `count` events of any of these; of everything when nothing is named."""
        wanted = frozenset(about)
        found = []
        for at, text, ids in reversed(self._events):
            if not wanted or not wanted.isdisjoint(ids):
                found.append(f"{at:12.3f}  {text}  {' '.join(i[:8] if len(i) == 25 else i for i in ids)}")
                if len(found) == count:
                    break
        return found[::-1]
