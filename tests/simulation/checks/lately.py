"""What was allowed until a moment ago: whoever acted on it cannot be blamed for it now."""

from __future__ import annotations

from tests.simulation.virtual import world_time


class Lately:
    """The largest value of each key that was replaced within the last so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._replaced: dict[str, tuple[float, int]] = {}

    def replaced(self, key: str, value: int) -> None:
        """It was this until now."""
        if value >= self.most(key, 0):
            self._replaced[key] = world_time(), value

    def most(self, key: str, now: int) -> int:
        """`now`: what it is."""
        at, value = self._replaced.get(key, (0.0, 0))
        return max(now, value) if world_time() - at <= self._seconds else now
