"""The leader's loops: changes of the world become keys, keys become plans, plans are carried out.

They hold nothing that must survive: a new leader starts them on the world as it finds it. One instance serves one
term of leadership and ends with `Deposed`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.clock import Clock
from pyswarm_manager.plan import Acks, Plan, World, earliest
from pyswarm_manager.queue import KeyQueue
from pyswarm_manager.wakes import DRAIN, SCHEDULER, all_keys, service_of, wakes
from pyswarm_manager.world import Change, Subscriber

log = get_logger("manager.loops")


class LiveWorld(World, Protocol):
    """A World that tells of its changes, and knows what no planner of tasks asks for."""

    @property
    def managers(self) -> Mapping[str, pb.Manager]:
        """Those that live."""
        ...

    @property
    def removed(self) -> Mapping[str, pb.RemovedNode]: ...

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]: ...


class Applier(Protocol):
    """Carries a plan out under the leader's fence. Errors: Conflict, Deposed, StoreUnavailable, OutcomeUnknown."""

    async def apply(self, plan: Plan) -> int:
        """The revision of the last write; 0 when there was nothing to write."""
        ...


@dataclass(frozen=True, slots=True)
class Planners:
    """The pure functions that decide. The real ones: `pyswarm_manager.planners.real`."""

    allocate: Callable[[World, str, float, Collection[pb.Service]], Plan]  # (world, service id, now, given)
    converge: Callable[[World, Acks, str, float, random.Random], Plan]  # (world, acks, service id, now, rng)
    assign: Callable[[World, float], Plan]  # (world, now)
    drain: Callable[[World, Acks, float], Plan]  # (world, acks, now)


class Loops:
    """`catch_up(revision)` returns when the world holds that revision: WatchCache.wait_for."""

    def __init__(
        self,
        world: LiveWorld,
        planners: Planners,
        applier: Applier,
        catch_up: Callable[[int], Awaitable[None]],
        acks: Acks,
        clock: Clock,
        rng: random.Random,
        *,
        observe: Callable[[str, float, float], None] | None = None,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._world = world
        self._planners = planners
        self._applier = applier
        self._catch_up = catch_up
        self._acks = acks
        self._clock = clock
        self._rng = rng
        self._allocating = asyncio.Lock()
        # Services as this term has given them addresses, which the world may not show yet.
        self._given: dict[str, pb.Service] = {}
        self.queue = KeyQueue("loops", self._work, clock, rng, observe=observe, steady=steady)

    async def run(self) -> None:
        """Until cancelled or Deposed."""
        cancel = self._world.subscribe(self._changed)
        try:
            for key in sorted(all_keys(self._world)):
                self.queue.add(key)
            await self.queue.run()
        finally:
            cancel()

    def acknowledged(self) -> None:
        """A node has confirmed more than before."""
        self.queue.add(DRAIN)

    def _changed(self, changes: Sequence[Change], revision: int) -> None:
        for key in sorted(set().union(*(wakes(change, self._world) for change in changes))):
            self.queue.add(key)

    async def _work(self, key: str) -> float | None:
        world, planners, now = self._world, self._planners, self._clock.now
        if key == SCHEDULER:
            return await self._carry_out(key, planners.assign(world, now()))
        if key == DRAIN:
            return await self._carry_out(key, planners.drain(world, self._acks, now()))
        service_id = service_of(key)
        assert service_id is not None, key
        # Addresses first: the tasks that converge makes need a service that has its VIPs.
        allocated = await self._allocate(key, service_id)
        converged = await self._carry_out(key, planners.converge(world, self._acks, service_id, now(), self._rng))
        return earliest(allocated, converged)

    async def _allocate(self, key: str, service_id: str) -> float | None:
        plan = self._planners.allocate(self._world, service_id, self._clock.now(), ())
        if not plan:
            self._given.pop(service_id, None)
            return plan.wake_at
        # Two services planned on one world would get the same address, and neither write would conflict. The lock is
        # left, too, when the world does not catch up: what was given then is known here alone.
        async with self._allocating:
            given = self._given = {i: one for i, one in self._given.items() if i in self._world.services}
            plan = self._planners.allocate(self._world, service_id, self._clock.now(), given.values())
            for step in plan.steps:
                given |= {write.message.id: write.message for write in step if isinstance(write.message, pb.Service)}
            return await self._carry_out(key, plan)

    async def _carry_out(self, key: str, plan: Plan) -> float | None:
        if plan:
            if log.is_enabled("debug"):
                log.debug("carrying out", key=key, writes=sum(map(len, plan.steps)), why="; ".join(plan.notes))
            # Without waiting, the next look at this key would plan on what it has just replaced, and conflict.
            await self._catch_up(await self._applier.apply(plan))
        return plan.wake_at
