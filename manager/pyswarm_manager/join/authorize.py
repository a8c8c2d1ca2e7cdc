"""The policy in front of every handler. TLS has proven who calls before anything gets here."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
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
                wrapped: grpc.RpcMethodHandler[Any, Any] = make(
                    wrap(behaviour, self._check, method),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
                return wrapped
        return None

    async def _check(self, context: Context, method: str) -> None:
        try:
            peer = peer_identity(context)
        except PyswarmError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        if reason := self._removed(peer.common_name):
            log.warning("call of a removed node refused", method=method, caller=peer.common_name, peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason, (REMOVED,))
        if reason := policy.refusal(method, peer):
            log.warning("call refused", method=method, caller=peer.common_name, role=peer.role, peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)


Check = Callable[["Context", str], Awaitable[None]]


def _unary(behaviour: Any, check: Check, method: str) -> Any:
    async def call(request: Any, context: Context) -> Any:
        await check(context, method)
        return await behaviour(request, context)

    return call


def _stream(behaviour: Any, check: Check, method: str) -> Any:
    if not inspect.isasyncgenfunction(behaviour):  # it writes to the context itself
        return _unary(behaviour, check, method)

    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(context, method)
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return call
