"""The network between hosts: who can send to whom now, and how long a packet takes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

Review = Callable[[], None]


class Net:
    """Cuts are counted: two that overlap must both be mended. `reviews` are called when anything has changed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._down: set[str] = set()
        self._reviews: dict[Review, None] = {}
        self.extra = 0.0  # seconds that a packet may take longer

    def can(self, source: str, target: str) -> bool:
        return source == target or not ((source, target) in self._cuts or source in self._down or target in self._down)

    def linked(self, one: str, other: str) -> bool:
        return self.can(one, other) and self.can(other, one)

    def is_up(self, host: str) -> bool:
        return host not in self._down

    def delay(self, source: str, target: str) -> float:
        base = 0.00005 if source == target else 0.0003 + 0.0012 * self._rng.random()
        if self.extra and source != target:
            base += self.extra * self._rng.random()
        return base

    def cut(self, source: str, target: str) -> None:
        self._cuts[source, target] += 1
        self.changed()

    def mend(self, source: str, target: str) -> None:
        self._cuts[source, target] -= 1
        if not self._cuts[source, target]:
            del self._cuts[source, target]
        self.changed()

    def set_up(self, host: str, up: bool) -> None:
        if up:
            self._down.discard(host)
        else:
            self._down.add(host)
        self.changed()

    def watch(self, review: Review) -> Callable[[], None]:
        self._reviews[review] = None
        return lambda: self._reviews.pop(review, None) and None

    def changed(self) -> None:
        for review in list(self._reviews):
            review()
