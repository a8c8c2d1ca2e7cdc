"""Since when nothing has gone wrong: what must hold outside of faults is asked of this."""

from __future__ import annotations

from tests.simulation.virtual import world_time


class Calm:
    """`begin` and `end` are called by the weather for what can hurt hosts, containers or the traffic between them."""

    def __init__(self) -> None:
        self._active = 0
        self._ended = -1e9
        self._of_service: dict[str, float] = {}

    def begin(self) -> None:
        self._active += 1

    def end(self) -> None:
        self._active -= 1
        self._ended = self._now()

    def disturb(self) -> None:
        """The user did what must hurt."""
        self._ended = self._now()

    def hurt(self, service_id: str) -> None:
        """A container of this service ended without being told to, or fell ill."""
        self._of_service[service_id] = self._now()

    def seconds(self, service_id: str) -> float:
        if self._active:
            return 0.0
        return self._now() - max(self._ended, self._of_service.get(service_id, -1e9))

    def _now(self) -> float:
        return world_time()
