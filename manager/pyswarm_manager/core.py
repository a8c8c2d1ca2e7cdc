"""A manager but for its sockets: the world, the election, what the leader does, and the two services that are called.

Everything that touches the outside comes in by the constructor, so that a simulator can run whole managers in a time
and on a network of its own. `app` gives it real ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from pyswarm_core.errors import Deposed, StoreUnavailable
from pyswarm_core.log import get_logger
from pyswarm_core.scrape.http import reachable
from pyswarm_core.store.base import Store
from pyswarm_core.store.cache import WatchCache
from pyswarm_core.together import run_together
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import planners
from pyswarm_manager.allocator.networks import parse_pool
from pyswarm_manager.api.admissions import Admissions
from pyswarm_manager.api.logs import LogReader
from pyswarm_manager.api.resolve import Resolver
from pyswarm_manager.api.servicer import Cluster, ControlServicer, Members
from pyswarm_manager.api.services import Services
from pyswarm_manager.clock import Clock
from pyswarm_manager.dispatcher.logs import LogBroker
from pyswarm_manager.dispatcher.servicer import DispatcherServicer
from pyswarm_manager.leader import Election, Leadership, boot_time
from pyswarm_manager.presence import Presence, managers
from pyswarm_manager.settings import Settings, split_address
from pyswarm_manager.term import LeaderTerm
from pyswarm_manager.world import CachedWorld

log = get_logger("manager.core")

AFTER_A_FAULT = 1.0  # seconds


class Core:
    """`run` until cancelled, then `resign`. `control` and `dispatcher` are the services, for a server to offer."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        world: CachedWorld,
        resolver: Resolver,
        forward_logs: Callable[[control.LogsRequest], AsyncIterator[control.LogsResponse]],
        clock: Clock,
        rng: random.Random,
        *,
        led: Callable[[bool], Awaitable[None]],
        observe: Callable[[str, float, float], None] | None = None,
        monotonic: Callable[[], float] = boot_time,
        keeper: Members | None = None,
    ) -> None:
        """`led`: told when agents' sessions may come, and when no more. `observe`: see KeyQueue. `monotonic`: seconds,
        for the election, and for agents' silence. `keeper`: of etcd's members, where managers look after them."""
        self.world = world
        self.cache = WatchCache(store, world)
        self.term: LeaderTerm | None = None
        self._settings = settings
        self._store = store
        self._clock = clock
        self._rng = rng
        self._led = led
        self._observe = observe
        self._monotonic = monotonic
        own = pb.Leader(
            manager_id=settings.manager_id,
            address=settings.advertise,
            metrics_address=reachable(settings.metrics_addr, split_address(settings.advertise, "advertised")[0]),
        )
        self._election = Election(store, own, ttl=settings.lease_ttl, clock=monotonic)
        self._presence = Presence(store, own, clock)
        self.dispatcher = DispatcherServicer(self.leader_address)
        self.admissions = Admissions(store, world, self.cache.wait_for, rng)
        services = Services(world, self.admissions, resolver, clock, rng)
        cluster = Cluster(
            settings.manager_id,
            leader=lambda: self.cache.leader,
            is_connected=lambda: self.cache.connected,
            managers=lambda: managers(store),
            pool=parse_pool(settings.address_pool),
            members=keeper,
        )
        logs = LogReader(world, self._broker, forward_logs, clock)
        self.control = ControlServicer(world, cluster, self.admissions, services, logs, clock, rng)

    async def run(self) -> None:
        await run_together(self.cache.run(), self._lead_forever(), self._presence.run())

    async def resign(self) -> None:
        """So that another manager leads at once. Waits for the store: put a timeout around it."""
        await self._election.resign()
        await self._presence.withdraw()

    def leader_address(self) -> str:
        """HOST:PORT of the leader, as far as this manager knows; "" = nobody leads, or it cannot tell: a watch that is
        behind may still name this manager when it leads no more."""
        leader = self.cache.leader
        if leader is None or (leader.manager_id == self._settings.manager_id and self.term is None):
            return ""
        return leader.address

    async def _lead_forever(self) -> None:
        while True:
            await self._until(lambda: not self._is_leaving())
            leadership = await self._election.campaign()
            pause = 0.0
            try:
                await self._lead(leadership)
            except Deposed as error:
                log.warning("deposed", reason=error)
            except StoreUnavailable as error:
                log.warning("gives up the lead", reason=error)
                pause = AFTER_A_FAULT
            except Exception:
                # A fault of ours must not end the cluster's management: give up the lead, and stand again.
                log.exception("leading failed")
                pause = AFTER_A_FAULT
            finally:
                self.term = self.dispatcher.term = None
                await self._led(False)
            await self._election.resign()
            await asyncio.sleep(pause)  # so that another may lead, who can

    async def _lead(self, leadership: Leadership) -> None:
        log.info("leading", leader_revision=leadership.create_revision)
        term = LeaderTerm(
            leadership,
            self._store,
            self.world,
            self.cache.wait_for,
            planners.real(),
            self._settings,
            self._clock,
            self._rng,
            observe=self._observe,
            steady=self._monotonic,
        )

        async def opened() -> None:
            self.term, self.dispatcher.term = term, term.dispatcher
            await self._led(True)

        # A manager that is to go hands over first.
        await run_together(term.run(opened), self._until(self._is_leaving))

    def _is_leaving(self) -> bool:
        """This manager's node is to be a worker, or is removed, and another manager lives."""
        own = self._settings.manager_id
        node = self.world.nodes.get(own)
        goes = own in self.world.removed or (node is not None and node.spec.role == spec.NODE_ROLE_WORKER)
        return goes and any(manager_id != own for manager_id in self.world.managers)

    async def _until(self, condition: Callable[[], bool]) -> None:
        met = asyncio.Event()
        cancel = self.world.subscribe(lambda changes, revision: met.set() if condition() else None)
        try:
            if not condition():
                await met.wait()
        finally:
            cancel()

    def _broker(self) -> LogBroker | None:
        return self.term.dispatcher.logs if self.term is not None else None
