"""The Dispatcher service. On the leader it opens sessions; everywhere else it says who leads."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from pyswarm_core.errors import InvalidInput, PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.tls import Peer, peer_identity
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import dispatcher_pb2_grpc as wire_grpc
from pyswarm_manager.api.errors import code_of
from pyswarm_manager.dispatcher.session import Session
from pyswarm_manager.dispatcher.term import Term

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger("dispatcher.servicer")

HELLO_WITHIN = 10.0  # seconds
AGENT_ROLES = ("worker", "manager")


class DispatcherServicer(wire_grpc.DispatcherServicer):
    """`term` is set while this manager leads. `leader_address`: HOST:PORT of the leader, "" when nobody leads."""

    def __init__(self, leader_address: Callable[[], str]) -> None:
        self.term: Term | None = None
        self._leader_address = leader_address

    async def Session(
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: Context
    ) -> AsyncIterator[wire.ManagerMessage]:
        peer = await _agent(context)
        # Heard also by who does not lead: an answer that meets the agent's write may be lost in its gRPC.
        hello = await _hello(request_iterator, context, peer)
        term = self.term
        if term is None:
            yield self._not_leader()
            return
        try:
            session = await term.admit(hello, is_manager=peer.role == "manager")
        except PyswarmError as error:
            log.warning("session refused", node=hello.node_id, error=error)
            await context.abort(code_of(error), str(error))
        reading = asyncio.create_task(_read(session, request_iterator))
        try:
            async for message in session.outgoing():
                if message.HasField("not_leader"):
                    message.not_leader.address = self._leader_address()
                yield message
        finally:
            reading.cancel()
            term.leave(session)

    async def PublishLogs(
        self, request_iterator: AsyncIterator[wire.LogBatch], context: Context
    ) -> wire.PublishLogsResponse:
        peer = await _agent(context)
        source = None
        try:
            async for batch in request_iterator:
                if batch.node_id not in ("", peer.common_name):  # the certificate says whose they are
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, _not_yours(peer, "log batch", batch.node_id))
                if source is None:
                    if self.term is None:
                        await context.abort(grpc.StatusCode.UNAVAILABLE, "This manager does not lead.")
                    source = self.term.logs.find(batch.request_id, peer.common_name)
                if batch.error:
                    source.error = batch.error
                if batch.lines and not await source.put(batch):
                    break
        except PyswarmError as error:
            await context.abort(code_of(error), str(error))
        finally:
            if source is not None:
                source.end(source.error)
        return wire.PublishLogsResponse()

    def _not_leader(self) -> wire.ManagerMessage:
        return wire.ManagerMessage(not_leader=wire.NotLeader(address=self._leader_address()))


async def _agent(context: Context) -> Peer:
    try:
        peer = peer_identity(context)
    except PyswarmError as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    if peer.role not in AGENT_ROLES:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"A certificate with the role '{peer.role}' cannot be an agent's: use the node's own.",
        )
    return peer


async def _hello(messages: AsyncIterator[wire.AgentMessage], context: Context, peer: Peer) -> wire.Hello:
    """The first message, and right."""
    try:
        async with asyncio.timeout(HELLO_WITHIN):
            message = await anext(aiter(messages))
    except (TimeoutError, StopAsyncIteration):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "No Hello came: an agent says it first.")
    hello = message.hello
    if not message.HasField("hello") or hello.node_id != peer.common_name:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            _not_yours(peer, "Hello", hello.node_id),
        )
    try:
        _check(hello)
    except InvalidInput as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    return hello


def _not_yours(peer: Peer, what: str, node_id: str) -> str:
    return (
        f"This call's certificate belongs to node '{peer.common_name}', but its {what} names '{node_id}': start the "
        "agent with the certificate of its own node."
    )


def _check(hello: wire.Hello) -> None:
    try:
        ipaddress.IPv4Address(hello.address)
    except ValueError:
        raise InvalidInput(
            f"'{hello.address}' is not an IPv4 address: start the agent with --address and the host's own."
        ) from None


async def _read(session: Session, messages: AsyncIterator[wire.AgentMessage]) -> None:
    """Until the agent ends the stream; then the session ends, too."""
    try:
        async for message in messages:
            session.received(message)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        log.info("stream broken", node=session.node_id, error=error)
    finally:
        session.close()
