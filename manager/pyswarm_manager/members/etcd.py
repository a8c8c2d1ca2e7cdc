"""etcd's members over its API. How each is, is asked of itself, on connections of their own and for a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from pyswarm_core.errors import PyswarmError
from pyswarm_core.etcd.client import Client
from pyswarm_core.etcd.cluster import Cluster, Member, Status
from pyswarm_core.log import get_logger

log = get_logger("members.etcd")


class EtcdMembers:
    """`client`: the store's. `probes`: one with a short timeout, for this alone."""

    def __init__(self, client: Client, probes: Client) -> None:
        self._cluster = Cluster(client)
        self._probes = probes
        self._probed = Cluster(probes)

    async def members(self) -> Sequence[Member]:
        return await self._cluster.members()

    async def answering(self, members: Sequence[Member]) -> Collection[int]:
        return {status.member_id for status in await self._statuses(members) if status.leader_id}

    async def add(self, peer_url: str) -> None:
        await self._cluster.add([peer_url], learner=True)

    async def promote(self, member_id: int) -> None:
        await self._cluster.promote(member_id)

    async def remove(self, member: Member) -> None:
        members = await self.members()
        statuses = await self._statuses(members)
        heirs = [s for s in statuses if s.member_id != member.id and not s.is_learner and s.leader_id]
        leader = next((s for s in statuses if s.is_leader and s.member_id == member.id), None)
        if leader is not None and heirs:
            try:
                await self._probed.move_leader(leader.endpoint, heirs[0].member_id)
            except PyswarmError as error:  # then etcd elects another by itself
                log.info("etcd's own leader was not moved", member=member.name, reason=error)
        await self._cluster.remove(member.id)

    async def _statuses(self, members: Sequence[Member]) -> list[Status]:
        endpoints = [url.partition("://")[2] for m in members for url in m.client_urls]
        self._probes.use(endpoints)

        async def ask(endpoint: str) -> Status | None:
            try:
                return await self._probed.status(endpoint)
            except PyswarmError:
                return None

        found = await asyncio.gather(*(ask(endpoint) for endpoint in endpoints))
        return [status for status in found if status is not None]
