"""The session's stream over gRPC with TLS. Translates gRPC's errors into SessionOver, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyswarm_agent.session import SessionOver
from pyswarm_core import tls
from pyswarm_core.errors import PyswarmError
from pyswarm_core.v1 import dispatcher_pb2 as wire

if TYPE_CHECKING:
    import grpc
    import grpc.aio

CONNECT_WITHIN = 2.0  # seconds
MAX_MESSAGE = 256 * 2**20  # a complete set of thousands of services
# A manager whose host is cut off sends no FIN: without pings its loss would be noticed after minutes.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # each session connects anew: nothing waits for another channel's backoff
]


class GrpcStream:
    def __init__(self, channel: grpc.aio.Channel, call: Any) -> None:
        self._channel = channel
        self._call = call

    async def write(self, message: wire.AgentMessage) -> None:
        async with _translated(self._call):
            await self._call.write(message)

    async def read(self) -> wire.ManagerMessage | None:
        import grpc.aio

        async with _translated(self._call):
            message = await self._call.read()
            return None if message is grpc.aio.EOF else message

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


class GrpcConnector:
    def __init__(self, tls_dir: Path) -> None:
        self._tls_dir = tls_dir

    def channel(self, address: str) -> grpc.aio.Channel:
        """Reads the certificates each time: they may have been renewed. Raises PyswarmError."""
        import grpc.aio

        identity = tls.Identity.load(self._tls_dir)
        options = [*tls.channel_options(), *_OPTIONS]
        return grpc.aio.secure_channel(address, tls.client_credentials(identity), options=options)

    async def open(self, address: str) -> GrpcStream:
        from pyswarm_core.v1 import dispatcher_pb2_grpc as rpc

        try:
            channel = self.channel(address)
        except PyswarmError as error:
            raise SessionOver(str(error)) from error
        try:
            await _connect(channel, address)
        except BaseException:
            await channel.close()
            raise
        return GrpcStream(channel, rpc.DispatcherStub(channel).Session())

    @asynccontextmanager
    async def dispatcher(self, address: str) -> AsyncIterator[Any]:
        """A stub on a channel of its own, for a stream that must not be in the session's way."""
        from pyswarm_core.v1 import dispatcher_pb2_grpc as rpc

        channel = self.channel(address)
        try:
            yield rpc.DispatcherStub(channel)
        finally:
            await channel.close()


async def _connect(channel: grpc.aio.Channel, address: str) -> None:
    """A host that is cut off answers nothing: it has less time than a manager that is busy with a welcome."""
    import asyncio

    import grpc

    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            state = channel.get_state(try_to_connect=True)
            # A failure is told by the call that follows, in words.
            while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise SessionOver(f"{address} cannot be reached within {CONNECT_WITHIN:g} s") from None


@asynccontextmanager
async def _translated(call: Any) -> AsyncIterator[None]:
    import asyncio

    import grpc.aio

    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _over(error.code(), error.details(), error.trailing_metadata()) from error
    except asyncio.InvalidStateError as error:  # it had ended before this was written
        raise _over(await call.code(), await call.details(), await call.trailing_metadata()) from error


def _over(code: grpc.StatusCode, details: str | None, trailing: Any) -> SessionOver:
    removed = any(key == "pyswarm-removed" for key, _ in trailing or ())
    return SessionOver(details or code.name, removed=removed)
