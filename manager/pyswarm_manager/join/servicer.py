"""Join, for hosts that have a token alone, and Membership, for members and users. Policy and TLS stand in front."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import grpc

from pyswarm_core.enrolment import public_key_of
from pyswarm_core.errors import InvalidInput
from pyswarm_core.ids import new_id
from pyswarm_core.log import get_logger
from pyswarm_core.tls import Role, alternatives_of, peer_certificate, peer_identity
from pyswarm_core.v1 import join_pb2 as pb
from pyswarm_core.v1 import join_pb2_grpc as rpc
from pyswarm_manager.join.vault import Vault
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
    """`managers`: those that live, id → HOST:PORT. `etcd`: HOST:PORT of its members. `address_pool`: CIDR."""

    def __init__(
        self,
        vault: Vault,
        managers: Callable[[], Awaitable[dict[str, str]]],
        etcd: Sequence[str],
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
        signed = []
        for role in sorted(GRANTED[kind]):
            is_server = role in ("manager", "etcd")
            certificate = authority.certify(
                public_key_of(wanted[role]),
                common_name=f"root@{request.hostname or node_id}"[:64] if role == "client" else node_id,
                role=cast(Role, role),
                names=[request.hostname] if is_server and request.hostname else [],
                addresses=[request.address, "127.0.0.1"] if is_server else [],
            )
            signed.append(pb.SignedCertificate(role=role, cert_pem=certificate))
        log.info("certificates signed", node=node_id, kind=kind, hostname=request.hostname, peer=context.peer())
        return pb.EnrollResponse(
            node_id=node_id,
            ca_pem=authority.ca_pem,
            certificates=signed,
            managers=sorted((await self._managers()).values()),
            etcd_endpoints=self._etcd if kind == "manager" else [],
            address_pool=self._address_pool if kind == "manager" else "",
        )


class MembershipServicer(rpc.MembershipServicer):
    """`address`: HOST:PORT of this manager, for join lines."""

    def __init__(self, vault: Vault, world: World, address: str) -> None:
        self._vault = vault
        self._world = world
        self._address = address

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        peer = peer_identity(context)
        if peer.common_name not in self._world.nodes:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"The node '{peer.common_name}' is not a member (any more), so its certificate is not renewed: "
                "'pyswarm leave' and 'pyswarm join' there make it one.",
            )
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
