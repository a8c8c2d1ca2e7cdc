"""Answers log requests: each by a stream of its own, so that a flood of lines is in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pyswarm_core.log import get_logger
from pyswarm_core.v1 import dispatcher_pb2 as wire

log = get_logger("agent.publish")


class Reader(Protocol):
    """Of `logs.reader.LogReader`."""

    def read(
        self, task_id: str, *, tail: int = -1, since: float = 0.0, follow: bool = False
    ) -> AsyncIterator[list[wire.LogLine]]: ...


class LogPublisher:
    def __init__(
        self, reader: Reader, dispatcher: Callable[[str], AbstractAsyncContextManager[Any]], node_id: str
    ) -> None:
        """`dispatcher(address)`: a stub on a channel of its own."""
        self._reader = reader
        self._dispatcher = dispatcher
        self._node_id = node_id
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, request: wire.LogRequest, address: str) -> None:
        self.cancel(request.request_id)
        task = asyncio.create_task(self._publish(request, address))
        self._running[request.request_id] = task
        task.add_done_callback(lambda done: self._ended(request.request_id, done))

    def cancel(self, request_id: str) -> None:
        """Nobody reads it any more."""
        task = self._running.pop(request_id, None)
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        """Of a session that is over, the manager has ended all requests."""
        for request_id in list(self._running):
            self.cancel(request_id)

    async def close(self) -> None:
        running = list(self._running.values())
        self.cancel_all()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, request_id: str, done: asyncio.Task[None]) -> None:
        if self._running.get(request_id) is done:
            del self._running[request_id]

    async def _publish(self, request: wire.LogRequest, address: str) -> None:
        import grpc.aio

        try:
            async with self._dispatcher(address) as stub:
                call = stub.PublishLogs()
                try:
                    await call.write(wire.LogBatch(request_id=request.request_id, node_id=self._node_id))
                    error = await self._write_all(request, call)
                    if error:
                        batch = wire.LogBatch(request_id=request.request_id, node_id=self._node_id, error=error)
                        await call.write(batch)
                    await call.done_writing()
                    await call
                finally:
                    call.cancel()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            log.debug("log stream ended by the manager", request=request.request_id, error=error)
        except Exception:
            log.exception("log request failed", request=request.request_id)

    async def _write_all(self, request: wire.LogRequest, call: Any) -> str:
        """All tasks side by side; the manager puts them in order of time. Returns what could not be read."""
        writing = asyncio.Lock()

        async def one(task_id: str) -> None:
            tail = request.tail
            lines_of = self._reader.read(task_id, tail=tail, since=request.since, follow=request.follow)
            async for lines in lines_of:
                batch = wire.LogBatch(request_id=request.request_id, node_id=self._node_id, lines=lines)
                async with writing:
                    await call.write(batch)

        tasks = [asyncio.create_task(one(task_id)) for task_id in request.task_ids]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        for result in results:
            if isinstance(result, OSError):
                return f"the log cannot be read: {result.strerror or result}"
            if isinstance(result, BaseException):
                raise result
        return ""
