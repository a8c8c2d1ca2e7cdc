"""etcd's own members: who they are, how they are, adding and removing one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyswarm_core.errors import InvalidInput, NotFound
from pyswarm_core.etcd.client import Client
from pyswarm_core.etcd.faults import Effect
from pyswarm_core.v1 import etcd_pb2 as pb

MEMBER_LIST = "/etcdserverpb.Cluster/MemberList"
MEMBER_ADD = "/etcdserverpb.Cluster/MemberAdd"
MEMBER_REMOVE = "/etcdserverpb.Cluster/MemberRemove"
MEMBER_PROMOTE = "/etcdserverpb.Cluster/MemberPromote"
MOVE_LEADER = "/etcdserverpb.Maintenance/MoveLeader"
STATUS = "/etcdserverpb.Maintenance/Status"


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    name: str  # "" = added, but has not started yet
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool  # receives everything, but has no vote yet


@dataclass(frozen=True, slots=True)
class Status:
    """Of one member, by its own word. Sizes in bytes."""

    endpoint: str
    member_id: int
    version: str
    leader_id: int  # 0 = it knows none
    is_learner: bool
    db_size: int
    db_size_in_use: int
    alarms: tuple[str, ...]

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.member_id


class Cluster:
    """Shares the store's connections: `Cluster(store.client)`. Errors as in `Client.unary`; PreconditionFailed when
    etcd refuses because too few members are well, and StoreUnavailable until all have been so for five seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def members(self) -> tuple[Member, ...]:
        request = pb.MemberListRequest(linearizable=True)
        response = await self._client.unary(MEMBER_LIST, request, pb.MemberListResponse, Effect.READ)
        return tuple(map(_member, response.members))

    async def add(self, peer_urls: Sequence[str], *, learner: bool = False) -> Member:
        """The new member must then be started with --initial-cluster-state existing. A learner joins without a vote, so
        that one that never comes up does not cost the majority; `promote` it when it has caught up."""
        request = pb.MemberAddRequest(peer_urls=peer_urls, is_learner=learner)
        response = await self._client.unary(MEMBER_ADD, request, pb.MemberAddResponse, Effect.WRITE)
        return _member(response.member)

    async def promote(self, member_id: int) -> None:
        """PreconditionFailed while the learner has not caught up: try again later."""
        request = pb.MemberPromoteRequest(id=member_id)
        await self._client.unary(MEMBER_PROMOTE, request, pb.MemberPromoteResponse, Effect.WRITE)

    async def remove(self, member_id: int) -> None:
        """Not there (any more) is no error."""
        request = pb.MemberRemoveRequest(id=member_id)
        try:
            await self._client.unary(MEMBER_REMOVE, request, pb.MemberRemoveResponse, Effect.REPEATABLE)
        except NotFound:
            pass

    async def move_leader(self, endpoint: str, target_id: int) -> None:
        """`endpoint`: etcd's own leader's. To remove that member without this costs an election: a second of writes."""
        index = self._client.endpoints.index(endpoint)
        request = pb.MoveLeaderRequest(target_id=target_id)
        await self._client.unary(MOVE_LEADER, request, pb.MoveLeaderResponse, Effect.REPEATABLE, endpoint=index)

    async def status(self, endpoint: str) -> Status:
        """`endpoint`: one of the client's, which is asked itself. Raises StoreUnavailable when it does not answer."""
        if endpoint not in self._client.endpoints:
            known = ", ".join(self._client.endpoints)
            raise InvalidInput(f"{endpoint} is not an etcd endpoint of this cluster: use one of {known}")
        index = self._client.endpoints.index(endpoint)
        response = await self._client.unary(
            STATUS, pb.StatusRequest(), pb.StatusResponse, Effect.READ, endpoint=index, require_leader=False
        )
        return Status(
            endpoint,
            response.header.member_id,
            response.version,
            response.leader,
            response.is_learner,
            response.db_size,
            response.db_size_in_use,
            tuple(response.errors),
        )


def _member(message: pb.Member) -> Member:
    return Member(message.id, message.name, tuple(message.peer_urls), tuple(message.client_urls), message.is_learner)
