"""Which managers live: each keeps a key of its own under a lease, so that one that dies is missed within seconds."""

from __future__ import annotations

from pyswarm_core.errors import PyswarmError
from pyswarm_core.kinds import PREFIX
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Put, Store
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.clock import Clock

log = get_logger("manager.presence")

MANAGERS_PREFIX = PREFIX + "manager/"
TTL = 10  # seconds
_RETRY = 1.0


class Presence:
    """`manager`: this one, and where its API is."""

    def __init__(self, store: Store, manager: pb.Leader, clock: Clock) -> None:
        self._store = store
        self._manager = manager
        self._clock = clock
        self._lease = 0

    async def run(self) -> None:
        """Until cancelled; outages of the store only interrupt it."""
        while True:
            try:
                await self._announce()
            except PyswarmError as error:
                log.debug("cannot show that this manager lives", error=error)
            await self._clock.sleep(_RETRY)

    async def withdraw(self) -> None:
        """At the end, so that nobody takes this manager for a lost one. Does not raise when the store is away."""
        lease, self._lease = self._lease, 0
        if lease:
            try:
                await self._store.revoke(lease)
            except PyswarmError as error:
                log.debug("the lease runs out by itself", error=error)

    async def _announce(self) -> None:
        """Returns when the lease is gone."""
        self._lease = await self._store.grant(TTL)
        key = MANAGERS_PREFIX + self._manager.manager_id
        await self._store.txn([], [Put(key, self._manager.SerializeToString(deterministic=True), self._lease)])
        while await self._store.keep_alive(self._lease) > 0:
            await self._clock.sleep(TTL / 3)


async def managers(store: Store) -> dict[str, str]:
    """Manager id → HOST:PORT of its API, of all that live now. Errors: as Store.list."""
    return {manager.manager_id: manager.address for manager in await living(store)}


async def living(store: Store) -> list[pb.Leader]:
    """Errors: as Store.list."""
    listing = await store.list(MANAGERS_PREFIX)
    return [pb.Leader.FromString(entry.value) for entry in listing.entries]
