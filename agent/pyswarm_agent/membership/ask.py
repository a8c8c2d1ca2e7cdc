"""Asks a manager for the certificates of the role that is stored for this node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pyswarm_agent.membership.role import Granted
from pyswarm_core import tls
from pyswarm_core.enrolment import new_request
from pyswarm_core.errors import PyswarmError
from pyswarm_core.v1 import join_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio

ANSWER_WITHIN = 15.0  # seconds
ROLES = ("worker", "manager", "etcd", "client")  # those that the stored role is not for are not signed


async def ask(
    channel: Callable[[str], grpc.aio.Channel], managers: Sequence[str], hostname: str, address: str, role: str
) -> Granted:
    """Of the first of `managers` that grants this role. `channel`: to HOST:PORT, with this node's certificate.

    PyswarmError: none does; the last one's reason."""
    import grpc.aio

    from pyswarm_core.v1 import join_pb2_grpc as rpc

    made = {each: new_request() for each in ROLES}
    request = pb.ChangeRoleRequest(
        hostname=hostname,
        address=address,
        requests=[pb.SigningRequest(role=each, csr_pem=csr) for each, (_, csr) in made.items()],
    )
    reason = "no other manager is known"
    for manager in managers:
        opened = channel(manager)
        try:
            answer = await rpc.MembershipStub(opened).ChangeRole(request, timeout=ANSWER_WITHIN)
        except grpc.aio.AioRpcError as error:
            reason = f"{manager}: {error.details() or error.code().name}"
            continue
        finally:
            await opened.close()
        if answer.role != role:
            reason = f"{manager} does not know yet that this node is to be a {role}"
            continue
        return Granted(
            role=role,
            identities={c.role: tls.Identity(answer.ca_pem, c.cert_pem, made[c.role][0]) for c in answer.certificates},
            managers=tuple(answer.managers),
            etcd=tuple(answer.etcd_endpoints),
            address_pool=answer.address_pool,
        )
    raise PyswarmError(f"no manager gives the certificates of a {role} ({reason})")
