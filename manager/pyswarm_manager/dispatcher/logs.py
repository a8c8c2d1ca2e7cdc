"""Container logs on their way from agents to whoever asked: a request goes down the session, lines come up a stream of
their own, so that a flood of them delays nothing else. Who reads slowly slows the agent, by flow control."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm_core.errors import NotFound
from pyswarm_core.ids import new_id
from pyswarm_core.v1 import dispatcher_pb2 as wire

_BATCHES = 4  # of one node that may wait for the reader


class LogSession(Protocol):
    def request_logs(self, request: wire.LogRequest) -> None: ...
    def cancel_logs(self, request_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """`tail`: last lines per task, -1 = all. `since`: unix seconds, 0 = all."""

    tail: int
    since: float
    follow: bool


class LogSource:
    """One node's part of one request: batches until None. `error`, then, says why it is not whole; else it is empty."""

    def __init__(self, node_id: str, request_id: str, session: LogSession) -> None:
        self.node_id = node_id
        self.request_id = request_id
        self.session = session
        self.error = ""
        self.is_open = False  # the agent has answered
        self._batches: asyncio.Queue[wire.LogBatch] = asyncio.Queue(_BATCHES)
        self._ended = asyncio.Event()

    async def next(self) -> wire.LogBatch | None:
        while self._batches.empty():
            if self._ended.is_set():
                return None
            getter = asyncio.create_task(self._batches.get())
            ended = asyncio.create_task(self._ended.wait())
            try:
                await asyncio.wait((getter, ended), return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    return getter.result()
            finally:
                getter.cancel()
                ended.cancel()
        return self._batches.get_nowait()

    async def put(self, batch: wire.LogBatch) -> bool:
        """False: nobody wants more."""
        if self._ended.is_set():
            return False
        if not self._batches.full():
            self._batches.put_nowait(batch)
            return True
        putter = asyncio.create_task(self._batches.put(batch))
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((putter, ended), return_when=asyncio.FIRST_COMPLETED)
            return putter.done()
        finally:
            putter.cancel()
            ended.cancel()

    def end(self, error: str = "") -> None:
        if not self._ended.is_set():
            self.error = error
            self._ended.set()


class LogBroker:
    """`session_of(node id)`: its open session, or None."""

    def __init__(self, session_of: Callable[[str], LogSession | None], rng: random.Random) -> None:
        self._session_of = session_of
        self._sources: dict[tuple[str, str], LogSource] = {}
        self._rng = rng

    def request(self, node_id: str, task_ids: Sequence[str], wanted: Wanted) -> LogSource | None:
        """Asks one node; None when it has no session. `release` what this returns."""
        session = self._session_of(node_id)
        if session is None:
            return None
        request_id = new_id(self._rng)
        source = LogSource(node_id, request_id, session)
        self._sources[request_id, node_id] = source
        session.request_logs(
            wire.LogRequest(
                request_id=request_id,
                task_ids=task_ids,
                tail=wanted.tail,
                since=wanted.since,
                follow=wanted.follow,
            )
        )
        return source

    def release(self, source: LogSource) -> None:
        """The reader is done with it: the agent may stop."""
        if self._sources.pop((source.request_id, source.node_id), None) is not None:
            source.session.cancel_logs(source.request_id)
        source.end()

    def find(self, request_id: str, node_id: str) -> LogSource:
        """For an agent that answers. NotFound: nobody asked this node (any more)."""
        source = self._sources.get((request_id, node_id))
        if source is None:
            raise NotFound(f"Nobody waits for the logs of request {request_id} any more.")
        source.is_open = True
        return source

    def session_ended(self, session: LogSession) -> None:
        for source in [s for s in self._sources.values() if s.session is session]:
            source.end("the connection to it was lost")

    def close(self) -> None:
        for source in self._sources.values():
            source.end("the manager that was reading it no longer leads")
