"""The dialogue of a host that has a token and no certificate with a manager. See docs/adr/0010.

Nothing is sent before the server has proven that it has a certificate of the authority that the token's digest names.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyswarm_cli import rpc_errors
from pyswarm_core import tls
from pyswarm_core.enrolment import JoinToken, digest_of, digest_of_pem, new_request
from pyswarm_core.errors import InvalidInput, PreconditionFailed, PyswarmError
from pyswarm_core.membership.member import API_PORT

if TYPE_CHECKING:
    from pyswarm_core.v1 import join_pb2 as pb

CONNECT_WITHIN = 10.0  # seconds
ANSWER_WITHIN = 30.0
ROLES = ("worker", "manager", "etcd", "client")  # those that the token is not for are not signed


@dataclass(frozen=True, slots=True)
class Enrolled:
    node_id: str
    identities: dict[str, tls.Identity] = field(repr=False)  # by role
    managers: tuple[str, ...]
    etcd: tuple[str, ...]
    address_pool: str  # "" = of an older manager, or for a worker


def join_address(manager: str) -> tuple[str, int]:
    """HOST[:PORT] of the manager's API → where hosts without a certificate are served: the port after it."""
    host, colon, port = manager.rpartition(":")
    if not colon:
        host, port = manager, str(API_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65535:
        raise InvalidInput(f"'{manager}' is not HOST:PORT of a manager, as in 10.0.0.1:{API_PORT}")
    return host, int(port) + 1


def enroll(token: JoinToken, manager: str, hostname: str, address: str) -> Enrolled:
    """As what the token is for: a worker, or a manager.

    InvalidInput: a malformed address. PreconditionFailed: the server is not of the token's cluster, or refuses."""
    import grpc

    from pyswarm_core.v1 import join_pb2 as pb
    from pyswarm_core.v1 import join_pb2_grpc as rpc

    host, port = join_address(manager)
    authority = authority_of(token, host, port)
    made = {role: new_request() for role in ROLES}
    request = pb.EnrollRequest(
        secret=token.secret,
        hostname=hostname,
        address=address,
        requests=[pb.SigningRequest(role=role, csr_pem=csr) for role, (_, csr) in made.items()],
    )
    credentials = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(f"{host}:{port}", credentials, options=tls.channel_options()) as channel:
        answer = _send(rpc.JoinStub(channel), request, f"{host}:{port}")
    if digest_of_pem(answer.ca_pem) != token.digest:
        raise PreconditionFailed("the manager answered with another authority than the token's; nothing was changed")
    return Enrolled(
        node_id=answer.node_id,
        identities={c.role: tls.Identity(answer.ca_pem, c.cert_pem, made[c.role][0]) for c in answer.certificates},
        managers=tuple(answer.managers),
        etcd=tuple(answer.etcd_endpoints),
        address_pool=answer.address_pool,
    )


def _send(stub: Any, request: pb.EnrollRequest, where: str) -> pb.EnrollResponse:
    import grpc

    try:
        answer: pb.EnrollResponse = stub.Enroll(request, timeout=ANSWER_WITHIN)
        return answer
    except grpc.RpcError as error:
        text = rpc_errors.details(error)
        if "CERTIFICATE_VERIFY_FAILED" in text or "Hostname" in text or "handshake" in text.lower():
            raise _impostor(where) from None
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise PyswarmError(
                f"the manager at {where} cannot take this host now: {text.rstrip('.')}; try again"
            ) from None
        raise rpc_errors.translate(error) from None


def authority_of(token: JoinToken, host: str, port: int) -> bytes:
    """The PEM of the authority with the token's digest, among the certificates that the server presents.

    That proves nothing about the server yet; nothing is sent to it here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), CONNECT_WITHIN) as plain,
            context.wrap_socket(plain, server_hostname=tls.SERVER_NAME) as secure,
        ):
            chain = _chain(secure)
    except ssl.SSLError as error:
        raise PreconditionFailed(
            f"what answers at {host}:{port} does not speak TLS ({error.reason}); is it a manager?"
        ) from None
    except OSError as error:
        raise PyswarmError(
            f"no manager answers at {host}:{port} ({error.strerror or error}); hosts join there, on the port after the "
            "manager's: check the address, and that nothing between the hosts blocks that port"
        ) from None
    for certificate in chain:
        if digest_of(certificate) == token.digest:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    raise _impostor(f"{host}:{port}")


def _chain(secure: ssl.SSLSocket) -> list[bytes]:
    """What the server presented, DER. Python has a public call for it from 3.13 on."""
    public: Any = getattr(secure, "get_unverified_chain", None)
    if public is not None:
        return [bytes(certificate) for certificate in public()]
    found: Any = secure._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in found]


def _impostor(where: str) -> PyswarmError:
    return PreconditionFailed(
        f"what answers at {where} is not a manager of this token's cluster; the token's secret was not sent, and "
        "nothing was changed: check the address, and that the token is of that cluster"
    )
