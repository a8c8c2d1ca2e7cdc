"""Looks after etcd's members: votes for those that have caught up, out with those whose node is no manager any more.

Only the leader changes anything, one thing at a time. It is not fenced: etcd itself refuses what would cost a majority,
and every step is decided anew on what etcd says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from pyswarm_core.errors import PreconditionFailed, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.cluster import Member
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.clock import Clock
from pyswarm_manager.loops import LiveWorld
from pyswarm_manager.members import plan
from pyswarm_manager.members.plan import Seen

log = get_logger("members.keeper")

PERIOD = 1.0  # seconds
SAY_AGAIN = 60.0


class Etcd(Protocol):
    """`members.etcd.EtcdMembers` is the real one. Errors: PyswarmError."""

    async def members(self) -> Sequence[Member]: ...
    async def answering(self, members: Sequence[Member]) -> Collection[int]:
        """Ids of those that answer now and know a leader."""
        ...

    async def add(self, peer_url: str) -> None:
        """As a learner."""
        ...

    async def promote(self, member_id: int) -> None: ...
    async def remove(self, member: Member) -> None: ...


class Keeper:
    def __init__(self, etcd: Etcd, world: LiveWorld, own: str, leads: Callable[[], bool], clock: Clock) -> None:
        """`own`: this manager's node."""
        self._etcd = etcd
        self._world = world
        self._own = own
        self._leads = leads
        self._clock = clock
        self._changing = asyncio.Lock()
        self._unstarted: dict[int, float] = {}  # member id → since when it is seen, on the event loop's clock
        self._said = ""
        self._said_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._leads():
                    async with self._changing:
                        await self._look()
            except PyswarmError as error:
                self._say(str(error))
            await self._clock.sleep(PERIOD)

    # For the API, of any manager.

    async def members(self) -> Sequence[Member]:
        return await self._etcd.members()

    async def has(self, node_id: str) -> bool:
        return any(m.name == node_id for m in await self._etcd.members())

    async def refuse(self, node_id: str) -> str:
        """Why this node's member may not be removed, one clause; "" = it may, or there is none."""
        members = await self._etcd.members()
        seen = await self._seen(members)
        ids = {m.name: m.id for m in seen}
        if node_id not in ids:
            return ""
        return plan.refuse_removal(seen, ids[node_id], [ids[n] for n in self._leaving() if n in ids])

    # Of the leader.

    async def prepare(self, node_id: str, peer_url: str) -> str:
        """etcd's initial-cluster for a member that starts without data. One that was there before is removed and added
        again. StoreUnavailable: not now, or not by this manager. PreconditionFailed: it may not be."""
        if not self._leads():
            raise StoreUnavailable("This manager does not lead: ask the next one.")
        async with self._changing:
            members = await self._etcd.members()
            former = next((m for m in members if peer_url in m.peer_urls or m.name == node_id), None)
            if former is not None and former.name:
                await self._replace(former, members)
                former = None
                members = await self._etcd.members()
            if former is None:
                if refused := plan.refuse_addition(await self._seen(members)):
                    raise StoreUnavailable(f"No member can be added to etcd now: {refused}.")
                await self._etcd.add(peer_url)
                log.info("etcd member added", node=node_id, peer_url=peer_url)
                members = await self._etcd.members()
            return ",".join(f"{m.name or node_id}={url}" for m in members for url in m.peer_urls)

    async def _replace(self, former: Member, members: Sequence[Member]) -> None:
        seen = await self._seen(members)
        if any(m.id == former.id and m.answers for m in seen):
            raise PreconditionFailed(
                f"The etcd member of this host, {former.name}, answers at {', '.join(former.client_urls)}: it runs "
                "already, so it is not started a second time without its data."
            )
        if refused := plan.refuse_removal(seen, former.id):
            raise StoreUnavailable(
                f"The etcd member of this host has lost its data, and cannot be replaced now: {refused}."
            )
        log.warning("etcd member has lost its data: removed, to be added again", member=former.name)
        await self._etcd.remove(former)

    async def _look(self) -> None:
        members = await self._etcd.members()
        now = asyncio.get_running_loop().time()
        self._unstarted = {m.id: self._unstarted.get(m.id, now) for m in members if not m.name}
        unstarted = {member_id: now - since for member_id, since in self._unstarted.items()}
        blind = [Seen(m.id, m.name, m.is_learner, answers=True) for m in members]
        leaving = self._leaving()
        if not (plan.suspects(blind, leaving, unstarted, self._own) or any(m.is_learner for m in members)):
            self._said = ""
            return
        todo, reason = plan.step(await self._seen(members), leaving, unstarted, self._own)
        match todo:
            case plan.Promote(member):
                try:
                    await self._etcd.promote(member.id)
                    log.info("etcd member has a vote", member=member.name)
                except PreconditionFailed as error:
                    reason = reason or f"the member of {member.name} has no vote yet: {error}"
            case plan.Remove(member, why):
                await self._etcd.remove(next(m for m in members if m.id == member.id))
                log.info("etcd member removed", member=member.name, reason=why)
        for member_id, seconds in unstarted.items():
            if seconds >= SAY_AGAIN:
                reason = reason or f"member {member_id:x} was added {seconds:.0f} s ago and has not started"
        self._say(reason)

    def _say(self, reason: str) -> None:
        """Once, and again after a while: what waits may wait for days."""
        now = asyncio.get_running_loop().time()
        if reason and (reason != self._said or now - self._said_at >= SAY_AGAIN):
            log.warning("etcd's members are not as they should be", reason=reason)
            self._said_at = now
        self._said = reason

    async def _seen(self, members: Sequence[Member]) -> list[Seen]:
        answering = await self._etcd.answering(members)
        return [Seen(m.id, m.name, m.is_learner, m.id in answering) for m in members]

    def _leaving(self) -> set[str]:
        """Nodes that are to be no managers."""
        workers = {n.id for n in self._world.nodes.values() if n.spec.role == spec.NODE_ROLE_WORKER}
        return workers.union(self._world.removed)
