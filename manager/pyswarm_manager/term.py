"""One term of leadership, whole: everything that only the leader runs, from the moment the world is caught up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from pyswarm_core.errors import Conflict, PyswarmError, StoreUnavailable
from pyswarm_core.ids import new_id
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Store
from pyswarm_core.together import run_together
from pyswarm_manager.allocator.networks import DEFAULT_NETWORK, default_network, parse_pool
from pyswarm_manager.announce import Announcer
from pyswarm_manager.clock import Clock
from pyswarm_manager.dispatcher.nodes import Limits
from pyswarm_manager.dispatcher.term import Term, Timing
from pyswarm_manager.endpoints import derive
from pyswarm_manager.leader import Leadership, boot_time
from pyswarm_manager.loops import LiveWorld, Loops, Planners
from pyswarm_manager.plan import Plan, Put
from pyswarm_manager.settings import Settings
from pyswarm_manager.writer import Writer

log = get_logger("manager.term")

CATCH_UP_WITHIN = 10.0  # seconds


class LeaderTerm:
    """`dispatcher` is for the servicers, while `run` runs."""

    def __init__(
        self,
        leadership: Leadership,
        store: Store,
        world: LiveWorld,
        catch_up: Callable[[int], Awaitable[None]],
        planners: Planners,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
        *,
        observe: Callable[[str, float, float], None] | None = None,
        steady: Callable[[], float] | None = None,
        catch_up_within: float = CATCH_UP_WITHIN,
    ) -> None:
        self._behind = asyncio.Event()
        self._catch_up_within = catch_up_within
        self._leadership = leadership
        self._store = store
        self._world = world
        self._wait_for = catch_up
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._writer = Writer(store, leadership.fence)
        self.dispatcher = Term(
            world,
            self._writer,
            self._catch_up,
            derive,
            clock,
            rng,
            leader_revision=leadership.create_revision,
            timing=_timing(settings),
            acknowledged=self._acknowledged,
            steady=steady,
            is_certain=lambda: leadership.is_certain((steady or boot_time)()),
        )
        self.loops = Loops(
            world,
            planners,
            self._writer,
            self._catch_up,
            self.dispatcher.acks,
            clock,
            rng,
            observe=observe,
            steady=steady,
        )
        self._announcer = Announcer(world, store, leadership.fence, clock)

    async def run(self, opened: Callable[[], Awaitable[None]]) -> None:
        """Until the term may have ended. `opened` is called when sessions may come. Raises Deposed, at the latest.

        StoreUnavailable: this manager does not see what is stored, so another one should lead."""
        # What earlier leaders wrote must be seen before anything is decided.
        await self._catch_up(self._leadership.create_revision)
        await self._make_default_network()
        self.dispatcher.open()
        await opened()
        await run_together(
            self._until_lost(),
            self._until_behind(),
            self.loops.run(),
            self.dispatcher.run(),
            self._announcer.run(),
            self._compact(),
        )

    def _acknowledged(self) -> None:
        self.loops.acknowledged()

    async def _until_lost(self) -> None:
        await self._leadership.lost.wait()

    async def _until_behind(self) -> None:
        await self._behind.wait()
        raise StoreUnavailable("the watch does not deliver what this manager has written")

    async def _catch_up(self, revision: int) -> None:
        """StoreUnavailable when the world stays behind: the term ends for it."""
        try:
            async with asyncio.timeout(self._catch_up_within):
                await self._wait_for(revision)
        except TimeoutError:
            self._behind.set()
            raise StoreUnavailable(f"the watch has not delivered revision {revision} yet") from None

    async def _make_default_network(self) -> None:
        while not any(network.spec.name == DEFAULT_NETWORK for network in self._world.networks.values()):
            pool = parse_pool(self._settings.address_pool)
            network = default_network(self._world, new_id(self._rng), self._clock.now(), pool)
            try:
                await self._catch_up(await self._writer.apply(Plan(steps=((Put(network),),))))
                log.info("network default created", subnet=network.spec.subnet)
            except Conflict:
                continue

    async def _compact(self) -> None:
        """History is kept for watches that were away for a while; without compaction etcd fills up."""
        while True:
            await self._clock.sleep(self._settings.compact_every)
            revision = self._world.revision - self._settings.keep_revisions
            if revision <= 0:
                continue
            try:
                await self._store.compact(revision)
                log.debug("compacted", revision=revision)
            except PyswarmError as error:
                log.warning("cannot compact the store, trying again later", error=error)


def _timing(settings: Settings) -> Timing:
    limits = Limits(down_after=settings.node_down_after, apply_within=settings.apply_within)
    return Timing(heartbeat_period=settings.heartbeat_period, limits=limits, grace=settings.node_grace)
