"""Join, for hosts that have a token alone, and Membership, for members and users. Policy and TLS stand in front."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import grpc

from pyswarm_core.enrolment import public_key_of
from pyswarm_core.errors import InvalidInput, PreconditionFailed, StoreUnavailable
from pyswarm_core.ids import new_id
from pyswarm_core.log import get_logger
from pyswarm_core.tls import Authority, Peer, Role, alternatives_of, peer_certificate, peer_identity
from pyswarm_core.v1 import join_pb2 as pb
from pyswarm_core.v1 import join_pb2_grpc as rpc
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.join.departures import Departures
from pyswarm_manager.join.vault import Vault
from pyswarm_manager.members.keeper import Keeper
from pyswarm_manager.plan import World

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger("join.servicer")

# What each token's holder may have signed.
GRANTED: dict[str, frozenset[str]] = {
    "worker": frozenset({"worker"}),
    "manager": frozenset({"manager", "etcd", "client"}),
}
AFTER_A_WRONG_SECRET = 1.0  # seconds until it is answered


class JoinServicer(rpc.JoinServicer):
    """`managers`: HOST:PORT of each one's API. `etcd`: HOST:PORT of its members. `address_pool`: CIDR."""

    def __init__(
        self,
        vault: Vault,
        managers: Callable[[], Sequence[str]],
        etcd: Callable[[], Sequence[str]],
        address_pool: str,
        rng: random.Random,
    ) -> None:
        self._vault = vault
        self._managers = managers
        self._etcd = etcd
        self._address_pool = address_pool
        self._rng = rng

    async def Enroll(self, request: pb.EnrollRequest, context: Context) -> pb.EnrollResponse:
        authority = await self._vault.authority()
        kind = _kind(await self._vault.secrets(), request.secret)
        if not kind:
            log.warning("wrong join secret", peer=context.peer(), hostname=request.hostname)
            await asyncio.sleep(AFTER_A_WRONG_SECRET)
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "The join token is not valid, or not any more: ask a manager with 'pyswarm swarm join-token worker' "
                "for the one of today.",
            )
        wanted = {part.role: part.csr_pem for part in request.requests}
        if missing := GRANTED[kind] - set(wanted):
            raise InvalidInput(
                f"A {kind}'s token needs a request for each of its roles, and {', '.join(sorted(missing))} is missing: "
                "join with a pyswarm of this cluster's version."
            )
        node_id = new_id(self._rng)
        signed = _sign(authority, node_id, GRANTED[kind], wanted, request.hostname, request.address)
        log.info("certificates signed", node=node_id, kind=kind, hostname=request.hostname, peer=context.peer())
        return pb.EnrollResponse(
            node_id=node_id,
            ca_pem=authority.ca_pem,
            certificates=signed,
            managers=self._managers(),
            etcd_endpoints=self._etcd() if kind == "manager" else [],
            address_pool=self._address_pool if kind == "manager" else "",
        )


class MembershipServicer(rpc.MembershipServicer):
    """`address`: HOST:PORT of this manager, for join lines. `managers`, `etcd`, `address_pool`: as for
    `JoinServicer`. `keeper`: of
    etcd's members; None: they are somebody else's."""

    def __init__(
        self,
        vault: Vault,
        world: World,
        address: str,
        departures: Departures,
        keeper: Keeper | None,
        managers: Callable[[], Sequence[str]],
        etcd: Callable[[], Sequence[str]],
        address_pool: str,
    ) -> None:
        self._vault = vault
        self._address_pool = address_pool
        self._world = world
        self._address = address
        self._departures = departures
        self._keeper = keeper
        self._managers = managers
        self._etcd = etcd

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        peer = peer_identity(context)
        if peer.role != "client":  # a user is no node
            await self._member(context)
        names, addresses = alternatives_of(peer_certificate(context))
        authority = await self._vault.authority()
        certificate = authority.certify(
            public_key_of(request.csr_pem),
            common_name=peer.common_name,
            role=cast(Role, peer.role),
            names=names,
            addresses=addresses,
        )
        log.info("certificate renewed", node=peer.common_name, role=peer.role)
        return pb.RenewResponse(ca_pem=authority.ca_pem, cert_pem=certificate)

    async def ChangeRole(self, request: pb.ChangeRoleRequest, context: Context) -> pb.ChangeRoleResponse:
        node_id = (await self._member(context)).common_name
        is_manager = self._world.nodes[node_id].spec.role == spec.NODE_ROLE_MANAGER
        role = "manager" if is_manager else "worker"
        if not is_manager and self._keeper is not None and await self._keeper.has(node_id):
            raise StoreUnavailable("Its etcd is a member still, and is removed before it becomes a worker: try again.")
        wanted = {part.role: part.csr_pem for part in request.requests}
        if missing := GRANTED[role] - set(wanted):
            raise InvalidInput(f"To become a {role} it needs a request for {', '.join(sorted(missing))}, too.")
        authority = await self._vault.authority()
        signed = _sign(authority, node_id, GRANTED[role], wanted, request.hostname, request.address)
        log.info("certificates signed for a change of role", node=node_id, role=role, peer=context.peer())
        return pb.ChangeRoleResponse(
            role=role,
            ca_pem=authority.ca_pem,
            certificates=signed,
            managers=self._managers(),
            etcd_endpoints=self._etcd() if is_manager else [],
            address_pool=self._address_pool if is_manager else "",
        )

    async def PrepareEtcd(self, request: pb.PrepareEtcdRequest, context: Context) -> pb.PrepareEtcdResponse:
        peer = peer_identity(context)
        if self._keeper is None:
            raise PreconditionFailed("This cluster's etcd is not looked after by its managers: start it by hand.")
        node = self._world.nodes.get(peer.common_name)  # none yet: a host that has just joined
        if node is not None and node.spec.role != spec.NODE_ROLE_MANAGER:
            raise PreconditionFailed(
                f"The node {node.description.hostname or node.id} is to be a worker, so its etcd is not started."
            )
        host = request.peer_url.rpartition("://")[2].rpartition(":")[0]
        if host not in alternatives_of(peer_certificate(context))[1]:
            raise PreconditionFailed(
                f"The address {host} is not in this node's certificate: its etcd must be where the node is."
            )
        return pb.PrepareEtcdResponse(initial_cluster=await self._keeper.prepare(peer.common_name, request.peer_url))

    async def Leave(self, request: pb.LeaveRequest, context: Context) -> pb.LeaveResponse:
        peer = peer_identity(context)
        waits_for = await self._departures.leave(peer.common_name, force=request.force, at_once=request.at_once)
        return pb.LeaveResponse(done=not waits_for, waits_for=waits_for)

    async def _member(self, context: Context) -> Peer:
        peer = peer_identity(context)
        if peer.common_name not in self._world.nodes:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"The node '{peer.common_name}' is not a member (any more), so no certificate is signed for it: "
                "'pyswarm leave' and 'pyswarm join' there make it one.",
            )
        return peer

    async def GetJoinTokens(self, request: pb.GetJoinTokensRequest, context: Context) -> pb.JoinTokens:
        tokens = await self._vault.tokens()
        return pb.JoinTokens(**tokens, address=self._address)

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest, context: Context) -> pb.JoinTokens:
        await self._vault.authority()
        await self._vault.rotate(request.role)
        return await self.GetJoinTokens(pb.GetJoinTokensRequest(), context)


def _kind(secrets: dict[str, str], given: str) -> str:
    """Which token's secret it is; "" = none's. Takes as long whatever is given."""
    found = ""
    for role, secret in secrets.items():
        if hmac.compare_digest(secret.encode(), given.encode()):
            found = role
    return found


def _sign(
    authority: Authority,
    node_id: str,
    roles: Collection[str],
    requests: Mapping[str, bytes],
    hostname: str,
    address: str,
) -> list[pb.SignedCertificate]:
    signed = []
    for role in sorted(roles):
        is_server = role in ("manager", "etcd")
        certificate = authority.certify(
            public_key_of(requests[role]),
            common_name=f"root@{hostname or node_id}"[:64] if role == "client" else node_id,
            role=cast(Role, role),
            names=[hostname] if is_server and hostname else [],
            addresses=[address, "127.0.0.1"] if is_server else [],
        )
        signed.append(pb.SignedCertificate(role=role, cert_pem=certificate))
    return signed
