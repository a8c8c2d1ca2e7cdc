"""How long the manager's calls take and how they end: an interceptor around all others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import join_pb2 as joining

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    Handler = grpc.RpcMethodHandler[Any, Any]

_PACKAGE = "/pyswarm.v1."
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Names of methods come from the protos alone: what a stranger calls cannot make a series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._seconds = Histogram(
            "pyswarm_rpc_seconds",
            "How long calls took, streams left out: they last as long as somebody listens.",
            ["method"],
            buckets=_LATENCIES,
            registry=registry,
        )
        self._ended = Counter("pyswarm_rpc", "Calls that ended, by gRPC code.", ["method", "code"], registry=registry)
        self._streams = Gauge("pyswarm_rpc_streams", "Streams that are open.", ["method"], registry=registry)
        for file in (control.DESCRIPTOR, wire.DESCRIPTOR, joining.DESCRIPTOR):
            for service in file.services_by_name.values():
                for method in service.methods:
                    name = f"{service.name}/{method.name}"
                    self._ended.labels(name, "ok")
                    if method.client_streaming or method.server_streaming:
                        self._streams.labels(name)
                    else:
                        self._seconds.labels(name)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(_PACKAGE):
            return handler
        name = method.removeprefix(_PACKAGE)
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._one(handler.unary_unary, name), **codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, name), **codecs)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._one(handler.stream_unary, name, is_stream=True), **codecs)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, name), **codecs)

    def _one(self, behaviour: Any, method: str, *, is_stream: bool = False) -> Any:
        async def call(request: Any, context: Any) -> Any:
            start = time.monotonic()
            if is_stream:
                self._streams.labels(method).inc()
            code = "ok"
            try:
                return await behaviour(request, context)
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                self._ended.labels(method, code).inc()
                if is_stream:
                    self._streams.labels(method).dec()
                else:
                    self._seconds.labels(method).observe(time.monotonic() - start)

        return call

    def _stream(self, behaviour: Any, method: str) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            self._streams.labels(method).inc()
            code = "ok"
            try:
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                self._streams.labels(method).dec()
                self._ended.labels(method, code).inc()

        return call


def _code(error: BaseException, context: Any) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    given = context.code()
    code = _CODES.get(given, grpc.StatusCode.UNKNOWN) if isinstance(given, int) else given
    return (code or grpc.StatusCode.UNKNOWN).name.lower()
