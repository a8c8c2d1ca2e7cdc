"""A joiner meets servers that are not the cluster's. None of them may see a byte of the secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tests.support.certificates import EXPIRED
from tests.support.etcd import free_port

from pyswarm_cli.bootstrap.enroll import enroll
from pyswarm_core import tls
from pyswarm_core.enrolment import JoinToken, digest_of_pem, new_request, new_secret
from pyswarm_core.errors import InvalidInput, PreconditionFailed, PyswarmError
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import join_pb2 as pb
from pyswarm_core.v1 import join_pb2_grpc as rpc
from pyswarm_manager.api.errors import ErrorInterceptor
from pyswarm_manager.join.servicer import JoinServicer
from pyswarm_manager.join.vault import SEED, Seed, Vault


class Recorder(rpc.JoinServicer):
    def __init__(self) -> None:
        self.heard: list[pb.EnrollRequest] = []

    async def Enroll(self, request: pb.EnrollRequest, context: object) -> pb.EnrollResponse:
        self.heard.append(request)
        return pb.EnrollResponse()


@asynccontextmanager
async def serving(servicer: rpc.JoinServicer, key: bytes, chain: bytes) -> AsyncIterator[str]:
    """Where a joiner is told that the manager is."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    rpc.add_JoinServicer_to_server(servicer, server)
    port = free_port()
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        yield f"127.0.0.1:{port - 1}"
    finally:
        await server.stop(0)


REAL = tls.Authority.create("real")
TOKEN = JoinToken(digest_of_pem(REAL.ca_pem), new_secret())


def _impostors() -> dict[str, tuple[bytes, bytes]]:
    """What each one has: (key, certificates that it presents)."""
    foreign = tls.Authority.create("real")
    server = foreign.issue(common_name="m", role="manager")
    worker = REAL.issue(common_name="w", role="worker")
    expired = REAL.issue(common_name="m", role="manager", days=EXPIRED)
    return {
        "foreign": (server.key_pem, server.cert_pem + foreign.ca_pem),
        "foreign, and shows the real authority": (server.key_pem, server.cert_pem + REAL.ca_pem),
        "a worker of the cluster": (worker.key_pem, worker.cert_pem + REAL.ca_pem),
        "a manager of the past": (expired.key_pem, expired.cert_pem + REAL.ca_pem),
    }


@pytest.mark.parametrize("impostor", _impostors())
async def test_an_impostor_gets_no_secret(impostor: str) -> None:
    key, chain = _impostors()[impostor]
    recorder = Recorder()
    async with serving(recorder, key, chain) as where:
        with pytest.raises(PreconditionFailed, match="secret was not sent"):
            await asyncio.to_thread(enroll, TOKEN, where, "h", "10.0.0.9")
    assert recorder.heard == []


async def test_the_real_one_signs_what_the_token_is_for(tmp_path: Path) -> None:
    vault = Vault(MemoryStore(), tmp_path / SEED)
    seed = Seed.create(REAL)
    (tmp_path / SEED).write_text(seed.dump())
    for _ in range(2):
        await vault.take_seed()
        assert not (tmp_path / SEED).exists()

    import random

    manager = REAL.issue(common_name="m", role="manager")
    pool = "10.128.0.0/10"
    servicer = JoinServicer(vault, lambda: ["10.0.0.1:2377"], lambda: ["10.0.0.1:2379"], pool, random.SystemRandom())
    async with serving(servicer, manager.key_pem, manager.cert_pem + REAL.ca_pem) as where:
        found = {}
        for role in ("worker", "manager"):
            token = JoinToken.parse(seed.token(role))
            found[role] = await asyncio.to_thread(enroll, token, where, "host", "10.0.0.9")
        with pytest.raises(PreconditionFailed, match="not valid"):
            await asyncio.to_thread(enroll, JoinToken(TOKEN.digest, new_secret()), where, "host", "10.0.0.9")
        await vault.rotate("worker")
        with pytest.raises(PreconditionFailed, match="not valid"):
            await asyncio.to_thread(enroll, JoinToken.parse(seed.token("worker")), where, "host", "10.0.0.9")
    assert set(found["worker"].identities) == {"worker"}
    assert found["worker"].etcd == ()
    assert set(found["manager"].identities) == {"manager", "etcd", "client"}
    assert found["manager"].etcd == ("10.0.0.1:2379",)
    assert found["worker"].identities["worker"].subject == tls.Peer(found["worker"].node_id, "worker")
    names, addresses = tls.alternatives_of(found["worker"].identities["worker"].cert_pem)
    assert (names, addresses) == (["pyswarm"], []), "a worker chooses no name of its certificate"


async def test_a_request_that_its_key_has_not_signed() -> None:
    from pyswarm_core.enrolment import public_key_of

    _, request = new_request()
    body = request.splitlines()
    body[1] = body[1][:20] + (b"A" if body[1][20:21] != b"A" else b"B") + body[1][21:]
    for bad in (b"", b"nonsense", b"\n".join(body)):
        with pytest.raises(InvalidInput):
            public_key_of(bad)


NO_TOKENS = ["", "x", "PYSWTKN-1-a-b", f"{TOKEN}x", f"x{TOKEN}", str(TOKEN).upper()]


@pytest.mark.parametrize("text", NO_TOKENS, ids=["nothing", "short", "too short", "longer", "prefixed", "upper case"])
def test_tokens_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        JoinToken.parse(text)
    assert TOKEN.secret not in str(refused.value)
    assert JoinToken.parse(f" {TOKEN}\n") == TOKEN


async def test_nobody_answers() -> None:
    with pytest.raises(PyswarmError, match="no manager answers at"):
        await asyncio.to_thread(enroll, TOKEN, f"127.0.0.1:{free_port()}", "h", "10.0.0.9")
