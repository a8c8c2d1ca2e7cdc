"""The agents' sessions: a stream between two processes, with everything that TCP and gRPC do to one.

Messages keep their order, but take their time; what is on its way when a direction is cut arrives when it is mended,
unless one end has given the stream up before, which the other end may not hear of (a half-open stream). A process that
dies is noticed at once, a host that dies or a process that is frozen only by pings that are not answered.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message
from tests.simulation.net import Net
from tests.simulation.virtual import Party, later, world_time

from pyswarm_agent.session import SessionOver
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_manager.dispatcher.servicer import DispatcherServicer

CONNECT_WITHIN = 2.0  # seconds, as in session_grpc
PING, PONG_AGENT, PONG_MANAGER = 10.0, 5.0, 10.0  # seconds, as both ends set gRPC's keepalive
WINDOW = 64  # messages on their way before the sender waits


class Aborted(Exception):
    """The handler has ended the call with an error."""


class Context:
    """Of a grpc.aio.ServicerContext, what our services use."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    async def abort(self, code: Any, details: str = "") -> None:
        raise Aborted(details)


class Pipe:
    """One direction."""

    def __init__(self, net: Net, source: str, target: str, kind: type[Message]) -> None:
        self._net = net
        self._source, self._target = source, target
        self._kind = kind
        self._last = 0.0
        self._under_way = 0
        self._flying: deque[bytes | None] = deque()  # whichever timer rings first, the oldest arrives first
        self._held: deque[bytes | None] = deque()
        self._arrived: deque[bytes | None] = deque()
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._error: str | None = None

    async def put(self, message: Message | None) -> None:
        """None ends the stream."""
        while self._under_way >= WINDOW and self._error is None:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable
        if self._error is not None:
            raise SessionOver(self._error)
        self._under_way += 1
        now = world_time()
        self._last = max(self._last, now + self._net.delay(self._source, self._target))
        self._flying.append(message.SerializeToString() if message is not None else None)
        later(self._last - now, self._arrive)

    async def get(self) -> Any:
        """The next message; None at the end. SessionOver when it is broken."""
        while not self._arrived:
            if self._error is not None:
                raise SessionOver(self._error)
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        data = self._arrived.popleft()
        self._under_way -= 1
        _wake(self._writable)
        return self._kind.FromString(data) if data is not None else None

    def fail(self, error: str, *, lose: bool = True) -> None:
        """`lose`: what has arrived and was not read is lost, too."""
        if self._error is None:
            self._error = error
            if lose:
                self._arrived.clear()
            _wake(self._readable)
            _wake(self._writable)

    def flush(self) -> None:
        """The direction was mended."""
        if self._held and self._net.can(self._source, self._target):
            held, self._held = self._held, deque()
            self._arrived.extend(held)
            _wake(self._readable)

    def _arrive(self) -> None:
        data = self._flying.popleft()
        if self._error is not None:
            return
        if self._held or not self._net.can(self._source, self._target):
            self._held.append(data)
            return
        self._arrived.append(data)
        _wake(self._readable)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class Server:
    """Where a manager's process answers: made anew at each start of it."""

    def __init__(self, host: str, party: Party, servicer: DispatcherServicer) -> None:
        self.host = host
        self.party = party
        self.servicer = servicer
        self.refuses = False  # new streams
        self.may_permit: Callable[[str], bool] = lambda host: True  # at this moment, whatever it believes
        self.permitted_late: Callable[[str], None] = lambda host: None  # told of a permit that was not to be
        self.tells: Callable[[str, wire.ManagerMessage], None] = lambda host, message: None


class Link:
    """One session's stream. The agent's end is a `session.Stream`."""

    def __init__(
        self, net: Net, rng: random.Random, agent: Party, host: str, server: Server, certificate: bytes
    ) -> None:
        self._net = net
        self._rng = rng
        self._agent, self._host = agent, host
        self._server = server
        self._up = Pipe(net, host, server.host, wire.AgentMessage)
        self._down = Pipe(net, server.host, host, wire.ManagerMessage)
        self._suspect: dict[str, asyncio.TimerHandle] = {}
        self._agent_over = self._manager_over = False
        self._may = True  # the manager was to give a permit, when it heard the last heartbeat
        self.on_read: Callable[[wire.ManagerMessage | None], None] = lambda message: None
        self.on_write: Callable[[wire.AgentMessage], None] = lambda message: None
        self._unwatch = net.watch(self._review)
        self._handler = server.party.spawn(self._serve(certificate))

    @property
    def server_party(self) -> Party:
        return self._server.party

    @property
    def is_over(self) -> bool:
        return self._agent_over and self._manager_over

    @property
    def is_whole(self) -> bool:
        return not (self._agent_over or self._manager_over)

    # ---- the agent's end ----

    async def write(self, message: wire.AgentMessage) -> None:
        self._agent.check()
        self.on_write(message)
        await self._up.put(message)

    async def read(self) -> wire.ManagerMessage | None:
        self._agent.check()
        self.on_read(None)
        message = await self._down.get()
        self._agent.check()
        self.on_read(message)
        return message  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._agent.check()
        self.leave()

    # ---- the manager's end ----

    async def _requests(self) -> AsyncIterator[wire.AgentMessage]:
        while True:
            message = await self._up.get()
            if message is None:
                return
            if message.HasField("heartbeat"):
                self._may = self._server.may_permit(self._host)
            yield message

    async def _serve(self, certificate: bytes) -> None:
        try:
            async for message in self._server.servicer.Session(self._requests(), Context(certificate)):  # type: ignore[arg-type]
                if message.HasField("heartbeat_ack") and message.heartbeat_ack.permit and not self._may:
                    self._server.permitted_late(self._host)
                self._server.tells(self._host, message)
                await self._down.put(message)
            await self._down.put(None)
        except Aborted as error:
            later(self._net.delay(self._server.host, self._host), self._end_agent, str(error), False)
        except SessionOver:
            pass
        finally:
            self._manager_over = True
            self._up.fail("the manager has ended it")

    # ---- how it breaks ----

    def leave(self) -> None:
        """The agent has closed it."""
        if not self._agent_over:
            self._end_agent("closed by this agent")
            self._tell_manager()

    def sever(self) -> None:
        """A reset, seen by both."""
        self._end_agent("connection reset")
        self._end_manager()

    def half_open(self, *, agent: bool) -> None:
        """One end loses it without a word; the other finds out when nothing answers its pings."""
        if agent:
            self._end_agent("connection reset")
            later(PING * self._rng.random() + PONG_MANAGER, self._end_manager)
        else:
            self._end_manager()
            later(PING * self._rng.random() + PONG_AGENT, self._end_agent, "no answer to pings")

    def agent_died(self) -> None:
        self._agent_over = True
        self._down.fail("dead")
        self._tell_manager()

    def manager_died(self) -> None:
        """Its host lives, and says so."""
        self._manager_over = True
        if self._net.linked(self._host, self._server.host):
            later(self._net.delay(self._server.host, self._host), self._end_agent, "connection reset")
        else:
            later(PING * self._rng.random() + PONG_AGENT, self._end_agent, "no answer to pings")

    def _tell_manager(self) -> None:
        if self._net.linked(self._host, self._server.host):
            later(self._net.delay(self._host, self._server.host), self._end_manager)
        else:
            later(PING * self._rng.random() + PONG_MANAGER, self._end_manager)

    def _end_agent(self, why: str, lose: bool = True) -> None:
        if not self._agent_over:
            self._agent_over = True
            self._down.fail(why, lose=lose)
            self._done()

    def _end_manager(self) -> None:
        if not self._manager_over:
            self._manager_over = True
            self._up.fail("connection reset")
            self._handler.cancel()
            self._done()

    def _done(self) -> None:
        if self._agent_over and self._manager_over:
            self._unwatch()
            for timer in self._suspect.values():
                timer.cancel()

    def review(self) -> None:
        self._review()

    def _review(self) -> None:
        """Whether each end still hears of the other."""
        heard = self._net.linked(self._host, self._server.host)
        if heard:
            self._up.flush()
            self._down.flush()
        self._look("agent", heard and not self._server.party.frozen, PONG_AGENT)
        self._look("manager", heard and not self._agent.frozen, PONG_MANAGER)

    def _look(self, end: str, answers: bool, pong: float) -> None:
        if answers:
            timer = self._suspect.pop(end, None)
            if timer is not None:
                timer.cancel()
        elif end not in self._suspect:
            give_up = self._end_manager if end == "manager" else lambda: self._end_agent("no answer to pings")
            self._suspect[end] = later(PING * self._rng.random() + pong, give_up)
