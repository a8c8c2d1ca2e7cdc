"""Calls to etcd: several endpoints with failover, TLS at both ends, a deadline for each call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from pyswarm_core import tls
from pyswarm_core.errors import InvalidInput, OutcomeUnknown, PreconditionFailed, StoreUnavailable
from pyswarm_core.etcd.faults import Effect, NotNow, translate
from pyswarm_core.log import get_logger

log = get_logger("etcd.client")

Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")

TIMEOUT = 5.0  # seconds, for one call with all its attempts
ATTEMPT_TIMEOUT = 2.0  # seconds; a read that hangs longer is tried at the next endpoint
MIN_WRITE_TIME = 1.0  # seconds before the end of the time; later no write is tried any more
CONNECT_TIMEOUT = 1.0  # seconds

# With this, a member that has no leader answers so instead of waiting for one, and ends its watches.
REQUIRE_LEADER = (("hasleader", "true"),)

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 64 << 20),  # the default of 4 MiB is less than one page of large values
    ("grpc.enable_retries", 0),  # whether a write may be repeated is decided here
    ("grpc.use_local_subchannel_pool", 1),  # no connection shared with, or kept by, another store
    # A frozen etcd keeps its connections: only an unanswered ping tells. (etcd refuses more than one in 5 s.)
    # keepalive_timeout_ms alone has no effect in gRPC's core: it waits for ping_timeout_ms, a minute by default.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # is the longest time for one attempt to connect, too
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Client:
    """`endpoints` are HOST:PORT, with or without http:// or https://. Connects when first used.

    All calls go to one endpoint until it fails; then the next one is tried.
    """

    def __init__(self, endpoints: Sequence[str], identity: tls.Identity | None, *, timeout: float = TIMEOUT) -> None:
        self.endpoints = tuple(_address(endpoint, secure=identity is not None) for endpoint in endpoints)
        if not self.endpoints:
            raise InvalidInput("no etcd endpoint is given: name at least one as HOST:PORT")
        self._timeout = timeout
        self._identity = identity
        self._channels = self._dial(self.endpoints)
        self._former: list[grpc.aio.Channel] = []
        self._current = 0
        self._closed = False

    def renew(self, identity: tls.Identity) -> None:
        """New connections are made with this one. Calls and watches in progress keep theirs for as long as it lives."""
        self._identity = identity
        self._former += self._channels
        self._channels = self._dial(self.endpoints)

    def use(self, endpoints: Sequence[str]) -> bool:
        """These instead of those so far; whose connection stands keeps it. Calls and watches in progress go on for as
        long as their member lets them. True: something changed. InvalidInput for a malformed one."""
        wanted = tuple(_address(endpoint, secure=self._identity is not None) for endpoint in endpoints)
        if not wanted or wanted == self.endpoints:
            return False
        current = self.endpoints[self._current]
        known = dict(zip(self.endpoints, self._channels, strict=True))
        new = [address for address in wanted if address not in known]
        self._former += [channel for address, channel in known.items() if address not in wanted]
        known.update(zip(new, self._dial(new), strict=True))
        self.endpoints, self._channels = wanted, [known[address] for address in wanted]
        self._current = wanted.index(current) if current in wanted else 0
        return True

    def _dial(self, endpoints: Sequence[str]) -> list[grpc.aio.Channel]:
        options = [*tls.channel_options(), *_OPTIONS]
        credentials = tls.client_credentials(self._identity) if self._identity else None
        return [
            grpc.aio.secure_channel(address, credentials, options=options)
            if credentials
            else grpc.aio.insecure_channel(address, options=options)
            for address in endpoints
        ]

    async def unary(
        self,
        path: str,
        request: Message,
        response: type[Response],
        effect: Effect,
        *,
        endpoint: int | None = None,
        require_leader: bool = True,
    ) -> Response:
        """One call, tried again as `effect` allows until the timeout. `endpoint`: ask this one only, by its number.
        Without `require_leader`, a member that has lost the others answers too.

        Raises StoreUnavailable, OutcomeUnknown (only if `effect` is not READ), `faults.HistoryGone`, or what etcd
        answered.
        """

        async def send(channel: grpc.aio.Channel, timeout: float) -> Response:
            method = channel.unary_unary(
                path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
            )
            return await method(request, timeout=timeout, metadata=REQUIRE_LEADER if require_leader else ())

        return await self._call(send, effect, endpoint)

    async def exchange(self, path: str, request: Message, response: type[Response], effect: Effect) -> Response:
        """One request and one answer on a stream of its own; as `unary` otherwise."""

        async def send(channel: grpc.aio.Channel, timeout: float) -> Response:
            method = channel.stream_stream(
                path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
            )
            call = method(timeout=timeout, metadata=REQUIRE_LEADER)
            try:
                await call.write(request)
                answer = await call.read()
            except asyncio.InvalidStateError:  # the stream was over before the request was written: read() says why
                answer = await call.read()
            finally:
                call.cancel()
            if not isinstance(answer, response):
                raise NotNow("etcd ended the stream without an answer", sent=True)
            return answer

        return await self._call(send, effect, None)

    async def connected(self) -> tuple[grpc.aio.Channel, int]:
        """The current endpoint's channel, ready, and its number for `rotate`. Raises StoreUnavailable at once, having
        moved on to the next endpoint."""
        index = self._current
        channel, address = self._channels[index], self.endpoints[index]
        if not await self._ready(channel, CONNECT_TIMEOUT):
            self.rotate(index)
            raise StoreUnavailable(self._unreachable(f"no connection to {address}"))
        return channel, index

    def rotate(self, index: int) -> None:
        """`index` has failed: the next calls go elsewhere. Nothing, if somebody has moved on already."""
        if index == self._current and len(self.endpoints) > 1:
            self._current = (index + 1) % len(self.endpoints)
            log.info("etcd endpoint changed", failed=self.endpoints[index], now=self.endpoints[self._current])

    async def close(self) -> None:
        self._closed = True
        for channel in (*self._channels, *self._former):
            await channel.close()

    async def _call(
        self, send: Callable[[grpc.aio.Channel, float], Awaitable[Result]], effect: Effect, endpoint: int | None
    ) -> Result:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout
        sent = False  # by an attempt that may have happened
        # A write that is begun just before the deadline would only end as an unknown outcome.
        least = min(MIN_WRITE_TIME, self._timeout / 2) if effect is Effect.WRITE else 0.0
        reason = ""

        async def attempt() -> Result:
            nonlocal sent, reason
            remaining = deadline - clock()
            if remaining <= least:
                raise NotNow("no time was left", sent=False)
            try:
                return await self._attempt(send, effect, endpoint, remaining)
            except NotNow as failure:
                sent = sent or failure.sent
                if failure.__cause__ or not reason:  # what a member answered tells more than that another is down
                    reason = str(failure)
                if failure.sent and effect is Effect.WRITE:
                    raise OutcomeUnknown(
                        f"etcd did not say whether the write happened ({failure}): read again before repeating it"
                    ) from failure
                raise

        try:
            try:
                return await attempt()
            except NotNow:
                retrying = AsyncRetrying(
                    stop=stop_after_delay(max(deadline - clock(), 0)),
                    wait=wait_random_exponential(multiplier=0.02, max=0.5),
                    retry=retry_if_exception_type(NotNow),
                    reraise=True,
                )
                return await retrying(attempt)
        except NotNow as failure:
            if sent and effect is not Effect.READ:
                raise OutcomeUnknown(f"etcd did not say whether the write happened ({failure})") from failure
            raise StoreUnavailable(self._unreachable(reason or str(failure))) from failure

    async def _attempt(
        self,
        send: Callable[[grpc.aio.Channel, float], Awaitable[Result]],
        effect: Effect,
        endpoint: int | None,
        remaining: float,
    ) -> Result:
        index = self._current if endpoint is None else endpoint
        if index >= len(self._channels):
            raise NotNow("this member was removed", sent=False)
        channel, address = self._channels[index], self.endpoints[index]
        # Only on a connection that stands: so that what cannot be sent is known not to have happened.
        if not await self._ready(channel, min(remaining, CONNECT_TIMEOUT)):
            if endpoint is None:
                self.rotate(index)
            raise NotNow(f"no connection to {address}", sent=False)
        # A write is not cut short: its answer, though late, is worth more than an unknown outcome.
        timeout = remaining if effect is Effect.WRITE else min(remaining, ATTEMPT_TIMEOUT)
        try:
            return await send(channel, max(timeout, 0.001))
        except grpc.aio.AioRpcError as error:
            fault = translate(error)
            if isinstance(fault, NotNow) and endpoint is None:
                self.rotate(index)
            raise fault from error
        except asyncio.CancelledError:
            self.refuse_when_closed()
            raise

    async def _ready(self, channel: grpc.aio.Channel, timeout: float) -> bool:
        self.refuse_when_closed()
        ready, failed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
        state = channel.get_state(try_to_connect=True)
        if state is ready:
            return True
        try:
            async with asyncio.timeout(timeout):
                while state not in (ready, failed):
                    await channel.wait_for_state_change(state)
                    self.refuse_when_closed()
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return state is ready

    def refuse_when_closed(self) -> None:
        """Closing a channel cancels its calls: this makes an error of such a cancellation, which nobody asked for."""
        task = asyncio.current_task()
        if self._closed and not (task and task.cancelling()):
            raise PreconditionFailed("the connection to etcd was closed by this process")

    def _unreachable(self, reason: str) -> str:
        return (
            f"etcd cannot be reached at {', '.join(self.endpoints)} ({reason}): "
            "check that it runs, has a majority, and uses this cluster's certificates"
        )


def _address(endpoint: str, *, secure: bool) -> str:
    scheme, separator, address = endpoint.rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise InvalidInput(f"the etcd endpoint {endpoint!r} is malformed: use HOST:PORT")
    if separator and (scheme == "https") != secure:
        missing = "needs a certificate" if scheme == "https" else "would not be encrypted"
        raise InvalidInput(f"the etcd endpoint {endpoint!r} {missing}: use https:// together with a certificate")
    host, colon, port = address.rstrip("/").rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInput(f"the etcd endpoint {endpoint!r} is malformed: use HOST:PORT")
    return f"{host}:{port}"
