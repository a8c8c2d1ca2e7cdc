"""The agent's conversation with the leader: one stream, dialled again for ever.

What comes down is checked here (fence, sequence) and handed to the `Listener`; what goes up is whatever is owed at the
moment of sending: the newest status of each task, the newest confirmation, a heartbeat.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from pyswarm_agent.applier import Mark
from pyswarm_agent.permit import boot_time
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.session_status import StatusBox
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import dispatcher_pb2 as wire

log = get_logger("agent.session")

WELCOME_WITHIN = 5.0  # seconds from dialling to Welcome
HEARTBEAT = 5.0  # until Welcome says otherwise
ANSWER_WITHIN = 6.0  # seconds for a heartbeat; a leader that was frozen keeps its connections
SAY_AGAIN = 30.0  # seconds between two log lines about managers that stay away


class SessionOver(Exception):
    """Why a session ended; one clause. `leader`: who leads instead, where that was said. `removed`: this node is no
    member any more, and never will be with this certificate."""

    def __init__(self, why: str, *, leader: str | None = None, removed: bool = False) -> None:
        super().__init__(why)
        self.leader = leader
        self.removed = removed


class Stream(Protocol):
    """One open stream; the adapter is `session_grpc`. Errors: SessionOver."""

    async def write(self, message: wire.AgentMessage) -> None: ...
    async def read(self) -> wire.ManagerMessage | None:
        """None: the manager has ended it."""
        ...

    async def close(self) -> None: ...


class Connector(Protocol):
    async def open(self, address: str) -> Stream: ...


class Fences(Protocol):
    """Of `journal_records.Records`."""

    @property
    def fence(self) -> tuple[int, int]: ...
    def set_fence(self, fence: tuple[int, int]) -> None: ...


class Listener(Protocol):
    """Who acts on what the manager says. An exception ends the session, and the next one starts from complete sets."""

    def hello(self) -> wire.Hello: ...
    def welcomed(self, welcome: wire.Welcome) -> None: ...
    def assigned(self, update: wire.AssignmentUpdate) -> None: ...
    def balanced(self, update: wire.EndpointUpdate, mark: Mark) -> None: ...
    def stored(self, updates: list[wire.StatusUpdate]) -> None: ...
    def stands(self, standing: wire.Standing) -> None: ...
    def removed(self) -> None:
        """The user has removed this node. May come again and again."""
        ...

    def logs_wanted(self, request: wire.LogRequest, address: str) -> None: ...
    def logs_cancelled(self, request_id: str) -> None: ...


class Permits(Protocol):
    """Of `exclusive.Exclusive`."""

    def period(self) -> float: ...
    def renewed(self, sent_at: float) -> None: ...


class Session:
    """`boot`: seconds since boot, which permits count in."""

    def __init__(
        self,
        connector: Connector,
        dialer: Dialer,
        box: StatusBox,
        fences: Fences,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
        *,
        permits: Permits,
        boot: Callable[[], float] = boot_time,
    ) -> None:
        self._connector = connector
        self._dialer = dialer
        self._box = box
        self._fences = fences
        self._listener = listener
        self._clock = clock
        self._permits = permits
        self._boot = boot
        self._asked: deque[float] = deque()  # boot times of heartbeats that are not answered yet
        self.answer_within = ANSWER_WITHIN
        self._is_answered = False  # this manager answers heartbeats; one of an older version does not
        self._count = 0
        self._confirm: Mark | None = None
        self._confirmed: Mark | None = None
        self._period = HEARTBEAT
        self._beaten_at = 0.0
        self._assignment_seq = 0
        self._endpoint_seq = 0
        self._said_at = -SAY_AGAIN
        self._is_stale = False
        self.address = ""  # of the manager that this agent is connected to, "" = none
        self.lost_at: float | None = clock()  # since when there is no session; None = there is one
        self.away = asyncio.Event()  # set while there is none
        self.away.set()

    def confirm(self, mark: Mark) -> None:
        """This update is in the kernel."""
        self._confirm = mark
        self._box.changed.set()

    def renew(self) -> None:
        """This node's certificate is another: the session ends, and the next one begins with it."""
        self._is_stale = True
        self._box.changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            address, delay = self._dialer.next()
            if delay:
                await asyncio.sleep(delay)
            try:
                await self._one(address)
            except SessionOver as over:
                if over.removed:
                    self._listener.removed()
                if over.leader is not None:
                    self._dialer.redirected(over.leader)
                elif not self.address:
                    self._dialer.failed()
                self._say(address, over)
            except Exception:
                log.exception("session ended by a fault in the agent", manager=address)
                self._dialer.failed()
            finally:
                if self.address:
                    self.address, self.lost_at = "", self._clock()
                    self.away.set()

    def _say(self, address: str, over: SessionOver) -> None:
        """A line when a session ends, then one now and again: managers may stay away for days."""
        if self.address:
            self._said_at = -SAY_AGAIN
        if self._clock() - self._said_at >= SAY_AGAIN:
            self._said_at = self._clock()
            log.warning("no session with a manager", manager=address, reason=str(over))

    async def _one(self, address: str) -> None:
        try:
            async with asyncio.timeout(WELCOME_WITHIN):
                stream = await self._connector.open(address)
                try:
                    await stream.write(wire.AgentMessage(hello=self._hello()))
                    first = await stream.read()
                except BaseException:
                    await stream.close()
                    raise
        except TimeoutError:
            raise SessionOver(f"it does not answer within {WELCOME_WITHIN:g} s") from None
        sending: asyncio.Task[None] | None = None
        try:
            self._begin(first, address)
            sending = asyncio.create_task(self._send(stream))
            async for message in _until(stream, sending):
                self._received(message)
        finally:
            if sending is not None:
                sending.cancel()
            await stream.close()

    def _hello(self) -> wire.Hello:
        hello = self._listener.hello()
        leader_revision, revision = self._fences.fence
        hello.last_fence.CopyFrom(wire.Fence(leader_revision=leader_revision, revision=revision))
        return hello

    def _begin(self, first: wire.ManagerMessage | None, address: str) -> None:
        if first is None:
            raise SessionOver("it ended the session at once")
        if first.HasField("not_leader"):
            raise SessionOver("it does not lead", leader=first.not_leader.address)
        if not first.HasField("welcome"):
            raise SessionOver("it does not begin with a welcome")
        self._check_fence(first.fence)
        self._count += 1
        self._assignment_seq = self._endpoint_seq = 0
        self._period = first.welcome.heartbeat_period or HEARTBEAT
        self._beaten_at = -self._period  # the first one at once
        self._asked.clear()
        self._is_answered = False
        self._confirm = self._confirmed = None
        self._listener.welcomed(first.welcome)
        self._box.new_session()
        self._dialer.opened(address)
        self.address, self.lost_at = address, None
        self.away.clear()
        log.info("session opened", manager=address, node_number=first.welcome.node_number)

    # ---- down ----

    def _received(self, message: wire.ManagerMessage) -> None:
        body = message.WhichOneof("body")
        if body == "not_leader":
            raise SessionOver("it leads no more", leader=message.not_leader.address)
        self._check_fence(message.fence)
        match body:
            case "assignments":
                self._assignment_seq = _in_order(
                    "assignment", message.assignments.seq, self._assignment_seq, message.assignments.complete
                )
                self._listener.assigned(message.assignments)
            case "endpoints":
                update = message.endpoints
                self._endpoint_seq = _in_order("endpoint", update.seq, self._endpoint_seq, update.complete)
                self._listener.balanced(update, Mark(self._count, update.seq, update.revision))
            case "status_ack":
                self._listener.stored(self._box.stored(message.status_ack.batches))
            case "standing":
                self._dialer.learn(message.standing.managers)
                self._listener.stands(message.standing)
            case "heartbeat_ack":
                self._answered(message.heartbeat_ack)
            case "logs":
                self._listener.logs_wanted(message.logs, self.address)
            case "cancel_logs":
                self._listener.logs_cancelled(message.cancel_logs.request_id)

    def _answered(self, ack: wire.HeartbeatAck) -> None:
        self._is_answered = True
        while self._asked and self._asked[0] <= ack.sent_at:
            self._asked.popleft()
        if ack.permit:
            self._permits.renewed(ack.sent_at)

    def _check_fence(self, fence: wire.Fence) -> None:
        """A leader that was deposed and does not know it yet must not be obeyed."""
        new, last = (fence.leader_revision, fence.revision), self._fences.fence
        if new < last:
            raise SessionOver(f"it spoke of revision {new[1]} under leader {new[0]}, which is older than {last}")
        if new != last:
            self._fences.set_fence(new)

    # ---- up ----

    async def _send(self, stream: Stream) -> None:
        """Raises SessionOver when the stream is broken."""
        changed = self._box.changed
        while True:
            due = min(self._next_beat(), self._box.due if self._box.due is not None else math.inf)
            if not changed.is_set():
                try:
                    async with asyncio.timeout(max(0.0, due - self._clock())):
                        await changed.wait()
                except TimeoutError:
                    pass
            changed.clear()
            if self._is_stale:
                self._is_stale = False
                raise SessionOver("this node has another certificate now")
            for message in self._owed():
                await stream.write(message)
            if self._is_answered and self._asked and self._boot() - self._asked[0] > self.answer_within:
                raise SessionOver(f"it has not answered for {self.answer_within:g} s")

    def _next_beat(self) -> float:
        return self._beaten_at + min(self._period, self._permits.period())

    def _owed(self) -> list[wire.AgentMessage]:
        owed = []
        mark = self._confirm
        if mark is not None and mark.session == self._count and mark != self._confirmed:
            self._confirmed = mark
            owed.append(wire.AgentMessage(applied=wire.Applied(revision=mark.revision, seq=mark.seq)))
        batch = self._box.take()
        if batch is not None:
            owed.append(wire.AgentMessage(statuses=batch))
        if self._clock() >= self._next_beat():
            self._beaten_at = self._clock()
            self._asked.append(self._boot())
            owed.append(wire.AgentMessage(heartbeat=wire.Heartbeat(sent_at=self._asked[-1])))
        return owed


def _in_order(kind: str, seq: int, last: int, complete: bool) -> int:
    if seq != last + 1:
        raise SessionOver(f"{kind} update {seq} came after {last}")
    if last == 0 and not complete:
        raise SessionOver(f"its first {kind} update is not complete")
    return seq


async def _until(stream: Stream, sending: asyncio.Task[None]) -> AsyncIterator[wire.ManagerMessage]:
    """Messages, until the stream ends either way. Raises SessionOver."""
    while True:
        reading = asyncio.ensure_future(stream.read())
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not reading.done():
                sending.result()  # raises why
            message = await reading
        finally:
            reading.cancel()
        if message is None:
            raise SessionOver("it ended the session")
        yield message
