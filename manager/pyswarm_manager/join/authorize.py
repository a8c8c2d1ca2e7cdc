"""The policy in front of every handler. TLS has proven who calls before anything gets here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import grpc

from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.tls import peer_identity
from pyswarm_manager.join import policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = grpc.aio.ServicerContext[Any, Any]

log = get_logger("join.authorize")


HEARD_WITHIN = 5.0  # seconds that a caller who is refused has for its first message
REMOVED = ("pyswarm-removed", "1")  # trailing metadata: the caller's node is no member any more


class AuthorizationInterceptor(grpc.aio.ServerInterceptor):
    """`removed(node id)`: why this node's certificate is refused, one sentence; "" = it is not."""

    def __init__(self, removed: Callable[[str], str] = lambda node_id: "") -> None:
        self._removed = removed

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        # Each kind of handler keeps its kind: only the behaviour is wrapped.
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                wrap = _stream if kind.endswith("stream") else _unary
                check = self._check_writer if kind.startswith("stream") else self._check
                wrapped: grpc.RpcMethodHandler[Any, Any] = make(
                    wrap(behaviour, check, method),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
                return wrapped
        return None

    async def _check(self, request: Any, context: Context, method: str) -> None:
        if (refusal := self._refusal(context, method)) is not None:
            await context.abort(*refusal)

    async def _check_writer(self, requests: AsyncIterator[Any], context: Context, method: str) -> None:
        """A client whose write meets the refusal learns of an internal error from its gRPC instead, and never why."""
        if (refusal := self._refusal(context, method)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARD_WITHIN):
                    await anext(aiter(requests), None)
            await context.abort(*refusal)

    def _refusal(
        self, context: Context, method: str
    ) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None:
        """Code, sentence and trailing metadata."""
        try:
            peer = peer_identity(context)
        except PyswarmError as error:
            return grpc.StatusCode.UNAUTHENTICATED, str(error), ()
        if reason := self._removed(peer.common_name):
            log.warning("call of a removed node refused", method=method, caller=peer.common_name, peer=context.peer())
            return grpc.StatusCode.PERMISSION_DENIED, reason, (REMOVED,)
        if reason := policy.refusal(method, peer):
            log.warning("call refused", method=method, caller=peer.common_name, role=peer.role, peer=context.peer())
            return grpc.StatusCode.PERMISSION_DENIED, reason, ()
        return None


Check = Callable[[Any, "Context", str], Awaitable[None]]


def _unary(behaviour: Any, check: Check, method: str) -> Any:
    async def call(request: Any, context: Context) -> Any:
        await check(request, context, method)
        return await behaviour(request, context)

    return call


def _stream(behaviour: Any, check: Check, method: str) -> Any:
    if not inspect.isasyncgenfunction(behaviour):  # it writes to the context itself
        return _unary(behaviour, check, method)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(request, context, method)
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return call
