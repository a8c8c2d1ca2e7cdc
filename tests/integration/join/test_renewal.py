"""Certificates that are about to expire renew themselves; nobody is restarted."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.etcd import EtcdProcess, free_port, needs_etcd
from tests.support.fake_agent import FakeAgent
from tests.support.manager import eventually
from tests.support.manager_process import ManagerProcess, connect, ready

from pyswarm_agent import certificates
from pyswarm_core import tls
from pyswarm_core.enrolment import request_of
from pyswarm_core.errors import PyswarmError
from pyswarm_core.renewal import renewal_time
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_manager.join.vault import SEED, Seed

pytestmark = needs_etcd

# Certificates are valid from an hour ago: with this, 99.8 % of their life is over.
SECONDS_LEFT = 8
DAYS = SECONDS_LEFT / 86400


@pytest.fixture
def authority() -> tls.Authority:
    return tls.Authority.create("test")


@pytest.fixture
def etcd(tmp_path: Path, authority: tls.Authority) -> Iterator[EtcdProcess]:
    identity = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    with EtcdProcess(tmp_path, identity=identity) as process:
        yield process


@pytest.fixture
def manager(tmp_path: Path, authority: tls.Authority, etcd: EtcdProcess) -> Iterator[ManagerProcess]:
    """Its certificate, and that of the etcd member beside it, end in some seconds."""
    member = tmp_path / "member-tls"
    authority.issue(common_name="manager-1", role="etcd", addresses=["127.0.0.1"], days=DAYS).save(member)  # type: ignore[arg-type]
    join_port = free_port()
    process = ManagerProcess(
        tmp_path,
        authority,
        [etcd.endpoint],
        join_listen=f"127.0.0.1:{join_port}",
        member_tls_dir=str(member),
    )
    authority.issue(common_name="manager-1", role="manager", names=["h"], addresses=["127.0.0.1"], days=DAYS).save(  # type: ignore[arg-type]
        tmp_path / "manager-1.tls"
    )
    data = tmp_path / "manager-1.data"
    data.mkdir()
    (data / SEED).write_text(Seed.create(authority).dump())
    process.join_port = join_port  # type: ignore[attr-defined]
    with process:
        yield process
        assert "traceback" not in process.log.read_text().lower(), process.log.read_text()[-3000:]


async def test_a_manager_outlives_its_certificate(
    tmp_path: Path, authority: tls.Authority, etcd: EtcdProcess, manager: ManagerProcess
) -> None:
    folders = (tmp_path / "manager-1.tls", tmp_path / "member-tls")
    before = [tls.Identity.load(folder) for folder in folders]
    pid = manager.pid
    async with connect(authority, manager.address) as stub:
        await ready(stub)
    for folder, old in zip(folders, before, strict=True):
        await eventually(lambda f=folder, o=old: tls.Identity.load(f).cert_pem != o.cert_pem, "it is renewed")
        new = tls.Identity.load(folder)
        assert new.subject == old.subject and new.key_pem == old.key_pem
        assert tls.alternatives_of(new.cert_pem) == tls.alternatives_of(old.cert_pem)
        assert new.expires_at > time.time() + 300 * 86400

    await eventually(lambda: time.time() > before[0].expires_at, "the old one has expired", within=2 * SECONDS_LEFT)
    # What it shows to new connections, and that etcd takes it on a new one.
    address = ("127.0.0.1", manager.join_port)  # type: ignore[attr-defined]
    shown = await asyncio.to_thread(ssl.get_server_certificate, address)
    assert shown.strip() == tls.Identity.load(folders[0]).cert_pem.decode().strip()
    await asyncio.to_thread(etcd.restart)
    async with connect(authority, manager.address) as stub:
        await ready(stub)
        await stub.ListNodes(control.ListRequest(), timeout=10)
    assert manager.pid == pid


async def test_a_worker_is_renewed_while_it_is_a_member(
    tmp_path: Path, authority: tls.Authority, manager: ManagerProcess
) -> None:
    async with connect(authority, manager.address) as stub:
        await ready(stub)
        identity = authority.issue(common_name="host-1", role="worker", days=DAYS)  # type: ignore[arg-type]
        folder = tmp_path / "worker-tls"
        identity.save(folder)

        def channel(address: str) -> grpc.aio.Channel:
            current = tls.client_credentials(tls.Identity.load(folder))
            return grpc.aio.secure_channel(address, current, options=tls.channel_options())

        signer = certificates.RemoteSigner(channel, lambda: ["127.0.0.1:1", manager.address])
        with pytest.raises(PyswarmError, match="not a member"):
            await signer(request_of(identity.key_pem))

        agent = FakeAgent("host-1", identity, [manager.address], address="10.99.0.1")
        async with agent.running():
            while not (await stub.ListNodes(control.ListRequest())).nodes:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            renewing = asyncio.create_task(
                certificates.keep_fresh(folder, channel, lambda: [manager.address], random.Random(1))
            )
            try:
                await eventually(lambda: tls.Identity.load(folder).cert_pem != identity.cert_pem, "it is renewed")
            finally:
                renewing.cancel()
            assert tls.Identity.load(folder).subject == identity.subject


def test_when() -> None:
    assert renewal_time(0, 100, 0.0) == 50
    assert 74 < renewal_time(0, 100, 0.999) < 75
