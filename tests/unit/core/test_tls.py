from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from pyswarm_core import tls
from pyswarm_core.errors import InvalidInput, NotFound, PreconditionFailed


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.Authority.create("test CA")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_saved_and_loaded_again_with_private_keys(tmp_path: Path, authority: tls.Authority) -> None:
    identity = authority.issue(common_name="node1", role="manager", names=["host-1"], addresses=["10.90.0.11"])
    old = os.umask(0)
    try:
        identity.save(tmp_path / "node")
        authority.save(tmp_path / "ca")
    finally:
        os.umask(old)
    assert tls.Identity.load(tmp_path / "node") == identity
    assert tls.Authority.load(tmp_path / "ca") == authority
    assert sorted(p.name for p in (tmp_path / "node").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert mode(tmp_path / "node/key.pem") == mode(tmp_path / "ca/ca-key.pem") == 0o600
    assert mode(tmp_path / "node/cert.pem") == 0o644
    assert identity.subject == tls.Peer("node1", "manager")
    assert abs(identity.expires_at - time.time() - tls.IDENTITY_DAYS * 86400) < 60
    assert b"PRIVATE" not in repr(identity).encode() + repr(authority).encode()


def test_openssl_accepts_the_chain_and_the_names(tmp_path: Path, authority: tls.Authority) -> None:
    authority.issue(common_name="n", role="etcd", names=["host-1"], addresses=["10.90.0.11"]).save(tmp_path)
    for purpose, name in (("sslserver", ["-verify_ip", "10.90.0.11"]), ("sslclient", ["-verify_hostname", "pyswarm"])):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *name]
        command += ["-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "cert.pem")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_bad_files_and_bad_requests_are_told_in_one_sentence(tmp_path: Path, authority: tls.Authority) -> None:
    with pytest.raises(NotFound, match=r"there is no TLS file .*ca\.pem"):
        tls.Identity.load(tmp_path)
    (tmp_path / "ca.pem").mkdir()
    with pytest.raises(PreconditionFailed, match="cannot be read"):
        tls.Identity.load(tmp_path)
    with pytest.raises(InvalidInput, match="it is not PEM"):
        _ = tls.Identity(b"", b"nonsense", b"").subject
    with pytest.raises(InvalidInput, match=r"'300\.1\.1\.1' does not appear to be"):
        authority.issue(common_name="n", role="worker", addresses=["300.1.1.1"])
    with pytest.raises(InvalidInput, match="unknown certificate role 'root'"):
        authority.issue(common_name="n", role="root")  # type: ignore[arg-type]


class Who(grpc.GenericRpcHandler):
    """Answers any call with "common name/role" of the caller."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
            peer = tls.peer_identity(context)
            return f"{peer.common_name}/{peer.role}".encode()

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def serving(identity: tls.Identity) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Who(),))
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def ask(address: str, credentials: grpc.ChannelCredentials) -> bytes:
    async with grpc.aio.secure_channel(address, credentials, options=tls.channel_options()) as channel:
        return bytes(await channel.unary_unary("/x/y")(b"", timeout=5))


async def test_a_server_sees_who_calls_whatever_address_was_dialled(authority: tls.Authority) -> None:
    async with serving(authority.issue(common_name="m1", role="manager")) as address:
        worker = authority.issue(common_name="w1", role="worker")
        assert await ask(address, tls.client_credentials(worker)) == b"w1/worker"


async def test_strangers_are_refused_at_both_ends(authority: tls.Authority) -> None:
    other = tls.Authority.create("another CA")
    stranger = other.issue(common_name="w1", role="manager")
    ours = authority.issue(common_name="w1", role="worker")
    async with serving(authority.issue(common_name="m1", role="manager")) as address:
        for credentials in (
            grpc.ssl_channel_credentials(ours.ca_pem),  # no certificate
            grpc.ssl_channel_credentials(ours.ca_pem, stranger.key_pem, stranger.cert_pem),
            tls.client_credentials(stranger),  # does not trust the server either
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(address, credentials)


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_a_worker_cannot_pose_as_a_manager(authority: tls.Authority, role: tls.Role) -> None:
    async with serving(authority.issue(common_name="w1", role=role)) as address:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(address, tls.client_credentials(authority.issue(common_name="c", role="client")))


async def test_a_plaintext_caller_has_no_identity() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Who(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="needs a client certificate"):
                await channel.unary_unary("/x/y")(b"", timeout=5)
    finally:
        await server.stop(None)


def test_importing_is_cheap() -> None:
    code = "import sys, pyswarm_core.tls; print([m for m in ('grpc', 'cryptography') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
