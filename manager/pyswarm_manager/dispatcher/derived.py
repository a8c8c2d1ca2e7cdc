"""The endpoints of all services as every node gets them: derived once per change, whatever the number of nodes.

Readers (sessions) keep a cursor and ask what has changed since: the answer costs what has changed, not what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pyswarm_core.v1 import endpoints_pb2 as endpoints
from pyswarm_manager.plan import World

# Removed services are remembered for readers that are behind; a reader that is further behind gets everything.
GRAVES = 1000  # removals that are remembered, for readers that are behind


class Deriver(Protocol):
    """The module `pyswarm_manager.endpoints.derive`."""

    def derive(
        self, world: World, service_id: str, now: float, empty_since: float | None
    ) -> endpoints.ServiceEndpoints: ...

    def hold_until(self, world: World, service_id: str, now: float, empty_since: float | None) -> float | None: ...

    def is_serving(self, world: World, service_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Delta:
    """`is_complete`: these are all; what else the reader has must go."""

    services: tuple[endpoints.ServiceEndpoints, ...]
    removed: tuple[str, ...]
    cursor: int
    is_complete: bool = False

    def __bool__(self) -> bool:
        return bool(self.services or self.removed or self.is_complete)


class EndpointCache:
    def __init__(self, deriver: Deriver, graves: int = GRAVES) -> None:
        self._graves = graves
        self._deriver = deriver
        self._derived: dict[str, endpoints.ServiceEndpoints] = {}
        self._empty_since: dict[str, float] = {}
        self._changed_at: dict[str, int] = {}  # service id → cursor of its last change, in that order
        self._oldest = 0  # cursors before this one have missed removals
        self.cursor = 0

    def refresh(self, world: World, service_id: str, now: float) -> float | None:
        """Derives one service anew. Returns when to do so again though nothing changes: a service that holds
        connections for want of endpoints refuses them then."""
        if self._deriver.is_serving(world, service_id):
            self._empty_since.pop(service_id, None)
        else:
            self._empty_since.setdefault(service_id, now)
        empty_since = self._empty_since.get(service_id)
        derived: endpoints.ServiceEndpoints | None = self._deriver.derive(world, service_id, now, empty_since)
        if service_id not in world.services and derived is not None and not derived.endpoints:
            derived = None  # it has gone, and no balancer needs to know anything of it any more
            self._empty_since.pop(service_id, None)
        if derived != self._derived.get(service_id):
            self._record(service_id, derived)
        return self._deriver.hold_until(world, service_id, now, empty_since) if derived is not None else None

    def since(self, cursor: int | None) -> Delta:
        """What has changed after `cursor`; everything for None, or for one that is too far behind."""
        if cursor is None or cursor < self._oldest:
            return Delta(tuple(self._derived.values()), (), self.cursor, is_complete=True)
        services, removed = [], []
        for service_id in reversed(self._changed_at):
            if self._changed_at[service_id] <= cursor:
                break
            derived = self._derived.get(service_id)
            if derived is None:
                removed.append(service_id)
            else:
                services.append(derived)
        return Delta(tuple(services), tuple(removed), self.cursor)

    def _record(self, service_id: str, derived: endpoints.ServiceEndpoints | None) -> None:
        self.cursor += 1
        self._changed_at.pop(service_id, None)
        self._changed_at[service_id] = self.cursor
        if derived is not None:
            self._derived[service_id] = derived
            return
        del self._derived[service_id]
        if len(self._changed_at) - len(self._derived) > self._graves:
            self._changed_at = {i: at for i, at in self._changed_at.items() if i in self._derived}
            self._oldest = self.cursor
