"""Every RPC of every service in protos/, and every kind of caller that may not: one clear refusal each.

Generated from the protos: a new RPC, and a new service, are in it by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tests.support.certificates import EXPIRED
from tests.support.etcd import EtcdProcess, needs_etcd
from tests.support.manager_process import ManagerProcess, connect, ready

import pyswarm_core.v1
from pyswarm_core import kinds, tls
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import Put
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.join import policy

pytestmark = needs_etcd


def _methods() -> dict[str, MethodDescriptor]:
    found = {}
    for module in pkgutil.iter_modules(pyswarm_core.v1.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"pyswarm_core.v1.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                for method in service.methods:
                    found[f"/{service.full_name}/{method.name}"] = method
    return found


METHODS = _methods()
SERVED = {n: m for n, m in METHODS.items() if m.containing_service.full_name not in policy.OPEN}
REFUSALS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.Authority.create("test")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory, authority: tls.Authority) -> Iterator[EtcdProcess]:
    identity = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    with EtcdProcess(tmp_path_factory.mktemp("etcd"), identity=identity) as process:
        yield process


@pytest.fixture(scope="module")
def manager(
    tmp_path_factory: pytest.TempPathFactory, authority: tls.Authority, etcd: EtcdProcess
) -> Iterator[ManagerProcess]:
    with ManagerProcess(tmp_path_factory.mktemp("manager"), authority, [etcd.endpoint]) as manager:
        yield manager
        assert "traceback" not in manager.log.read_text().lower(), manager.log.read_text()[-3000:]


@pytest.fixture
async def address(manager: ManagerProcess, authority: tls.Authority) -> str:
    async with connect(authority, manager.address) as stub:
        await ready(stub)
    return manager.address


async def call(
    channel: grpc.aio.Channel, name: str, *messages: Message, timeout: float = 5
) -> grpc.aio.AioRpcError | None:
    """The error that the call ends with; None when it is answered."""
    method = METHODS[name]
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    make = getattr(channel, kind)(
        name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    sent = list(messages) or [request()]
    given: Any = sent[0] if not method.client_streaming else _stream(sent)
    made = make(given, timeout=timeout)
    try:
        if method.server_streaming:
            async for _ in made:
                return None
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return error
    finally:
        made.cancel()
    return None


async def _stream(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


def channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    options = [*tls.channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, credentials, options=options)


def test_every_service_has_a_policy() -> None:
    for name in SERVED:
        assert policy.allowed(name), f"{name} is open to nobody: give its service a line in join/policy.py"
    assert len(METHODS) > 20
    assert not policy.allowed("/pyswarm.v1.Unheard/Of")


@pytest.mark.parametrize("caller", ["plaintext", "none", "foreign", "foreign-manager", "expired"])
@pytest.mark.parametrize("name", METHODS)
async def test_strangers_are_refused_by_tls(address: str, authority: tls.Authority, caller: str, name: str) -> None:
    trusted = authority.ca_pem
    if caller == "plaintext":
        dialled = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    elif caller == "none":
        dialled = channel(address, grpc.ssl_channel_credentials(trusted))
    else:
        signer = authority if caller == "expired" else tls.Authority.create("test")
        role: tls.Role = "manager" if caller == "foreign-manager" else "client"
        given = signer.issue(common_name="stranger", role=role, days=EXPIRED if caller == "expired" else 1)
        dialled = channel(address, grpc.ssl_channel_credentials(trusted, given.key_pem, given.cert_pem))
    async with dialled:
        error = await call(dialled, name)
    assert error is not None, "a stranger was answered"
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error


@pytest.mark.parametrize("role", tls.ROLES)
@pytest.mark.parametrize("name", SERVED)
async def test_each_role_may_what_the_policy_says(address: str, authority: tls.Authority, role: Any, name: str) -> None:
    identity = authority.issue(common_name="somebody", role=role)
    async with channel(address, tls.client_credentials(identity)) as dialled:
        # Those that may get a stream that says nothing, and are not to be waited for; the others an answer at once.
        error = await call(dialled, name, timeout=2 if role in policy.allowed(name) else 20)
    if role in policy.allowed(name):
        said_no = error is not None and error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert not said_no or "may not call" not in (error.details() or "")
        return
    assert error is not None, f"a {role} was answered"
    details = error.details() or ""
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    assert role in details and name.rpartition("/")[2] in details
    assert ": " in details, "it says what to do"


@pytest.fixture(scope="module")
def removed(manager: ManagerProcess, etcd: EtcdProcess, authority: tls.Authority) -> str:
    """A node that is none any more."""

    async def remove() -> None:
        store = EtcdStore.connect([etcd.endpoint], authority.issue(common_name="m", role="manager"))
        node = pb.RemovedNode(id="gone", hostname="host-9")
        try:
            await store.txn([], [Put(kinds.key_of(node), kinds.encode(node))])
        finally:
            await store.close()

    asyncio.run(remove())
    return "gone"


@pytest.mark.parametrize("role", ["worker", "manager"])
@pytest.mark.parametrize("name", SERVED)
async def test_a_removed_node_is_refused(
    address: str, authority: tls.Authority, removed: str, role: tls.Role, name: str
) -> None:
    identity = authority.issue(common_name=removed, role=role)
    async with channel(address, tls.client_credentials(identity)) as dialled:
        error = await call(dialled, name)
    assert error is not None and error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    assert "host-9 was removed" in (error.details() or "") and "pyswarm join" in (error.details() or "")
    assert any(key == "pyswarm-removed" for key, _ in error.trailing_metadata() or ())


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.containing_service.name == "Dispatcher"])
async def test_a_node_speaks_for_itself_alone(address: str, authority: tls.Authority, name: str) -> None:
    """Each RPC of agents names its node in the first message; another's name is refused."""
    message = GetMessageClass(METHODS[name].input_type)()
    assert _name(message, METHODS[name].input_type, "host-b"), f"{name} does not say for which node it speaks"
    identity = authority.issue(common_name="host-a", role="worker")
    async with channel(address, tls.client_credentials(identity)) as dialled:
        error = await call(dialled, name, message)
    assert error is not None
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    assert "host-a" in (error.details() or "") and "host-b" in (error.details() or "")


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if n in SERVED and m.client_streaming])
async def test_a_client_that_is_still_writing_learns_why(
    address: str, authority: tls.Authority, removed: str, name: str
) -> None:
    """Where a refusal meets a write, gRPC for Python tells its client of an internal error instead, for good: so it
    must not come before the client has written. (One in ten, with these pauses.)"""
    identity = authority.issue(common_name=removed, role="worker")
    request, response = GetMessageClass(METHODS[name].input_type), GetMessageClass(METHODS[name].output_type)
    kind = "stream_stream" if METHODS[name].server_streaming else "stream_unary"
    async with channel(address, tls.client_credentials(identity)) as dialled:
        await dialled.channel_ready()
        make = getattr(dialled, kind)(
            name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        for number in range(120):
            made = make(timeout=20)
            await asyncio.sleep(number % 40 * 0.0001)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await made.write(request())
            assert await made.code() is grpc.StatusCode.PERMISSION_DENIED, f"{await made.details()}, at {number}"


def _name(message: Any, descriptor: Descriptor, node_id: str) -> bool:
    """Sets the `node_id` of the message, or of its first part that has one."""
    if "node_id" in descriptor.fields_by_name:
        message.node_id = node_id
        return True
    for field in descriptor.fields:
        if field.message_type is not None and "node_id" in field.message_type.fields_by_name:
            getattr(message, field.name).node_id = node_id
            return True
    return False


@pytest.mark.parametrize("name", METHODS)
async def test_what_is_for_strangers_is_not_served_here(address: str, authority: tls.Authority, name: str) -> None:
    if name in SERVED:
        return
    identity = authority.issue(common_name="root", role="client")
    async with channel(address, tls.client_credentials(identity)) as dialled:
        error = await call(dialled, name)
    assert error is not None and error.code() is grpc.StatusCode.UNIMPLEMENTED
