"""Errors become gRPC codes, here and nowhere else. The details are the error's one sentence, for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from pyswarm_core.errors import (
    AlreadyExists,
    Conflict,
    Deposed,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    PyswarmError,
    StoreUnavailable,
)
from pyswarm_core.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log = get_logger("api.errors")

_CODES: tuple[tuple[type[PyswarmError], grpc.StatusCode], ...] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (PreconditionFailed, grpc.StatusCode.FAILED_PRECONDITION),
    (Conflict, grpc.StatusCode.ABORTED),
    (StoreUnavailable, grpc.StatusCode.UNAVAILABLE),
    (Deposed, grpc.StatusCode.UNAVAILABLE),
    # Not UNAVAILABLE: a client retries that by itself, and this must be looked at first.
    (OutcomeUnknown, grpc.StatusCode.UNKNOWN),
)
UNEXPECTED = "The manager failed to carry this out because of an error of its own: its log says more."


def code_of(error: PyswarmError) -> grpc.StatusCode:
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Around every handler: what it raises ends the call with the right code, and nothing leaks a traceback."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                _guarded(handler.unary_unary, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler  # the dispatcher's: it speaks to agents, and ends its calls itself


def _guarded(behaviour: Any, method: str) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as error:
            return await _abort(error, context, method)

    return call


def _guarded_stream(behaviour: Any, method: str) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(request, context):
                yield response
        except Exception as error:
            await _abort(error, context, method)

    return call


async def _abort(error: Exception, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, PyswarmError):
        await context.abort(code_of(error), str(error))
    log.exception("a call failed unexpectedly", method=method)
    await context.abort(grpc.StatusCode.INTERNAL, UNEXPECTED)
