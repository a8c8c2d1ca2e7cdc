"""Which networks services are attached to, counted as services change: asking costs nothing, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from pyswarm_core.v1 import objects_pb2 as pb


class Attached:
    def __init__(self, services: Iterable[pb.Service]) -> None:
        self._count: Counter[str] = Counter()
        for service in services:
            self._count.update(_networks(service))

    @property
    def networks(self) -> Collection[str]:
        return self._count.keys()

    def change(self, old: pb.Service | None, new: pb.Service | None) -> bool:
        """Whether a network came or went."""
        before = _networks(old) if old is not None else set()
        after = _networks(new) if new is not None else set()
        if before == after:
            return False
        known = len(self._count)
        self._count.update(after - before)
        gone = 0
        for network_id in before - after:
            self._count[network_id] -= 1
            if self._count[network_id] <= 0:
                del self._count[network_id]
                gone += 1
        return gone > 0 or len(self._count) != known


def _networks(service: pb.Service) -> set[str]:
    """Those of its spec, and those in which it holds a VIP still."""
    attached = {attachment.network_id for attachment in service.spec.task.networks}
    attached.update(vip.network_id for vip in service.vips)
    return attached
