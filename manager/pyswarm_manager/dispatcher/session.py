"""One agent's session: what it is owed, computed when it can take it.

Nothing is queued for an agent but log requests: a message is made from the world at the moment of its sending, so a
slow agent gets fewer and larger updates, and costs the leader no memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm_core.log import get_logger
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher.assignments import AssignmentSet
from pyswarm_manager.dispatcher.derived import EndpointCache
from pyswarm_manager.plan import World

log = get_logger("dispatcher.session")

# Endpoint updates that an agent may have without having confirmed one; then it gets no more until it does.
WINDOW = 8


class Leadership(Protocol):
    """What a session needs of the leader's term."""

    @property
    def world(self) -> World: ...
    @property
    def endpoints(self) -> EndpointCache: ...
    @property
    def attached_networks(self) -> Collection[str]: ...
    @property
    def node_list_version(self) -> int: ...
    @property
    def awaited_revision(self) -> int:
        """Somebody waits for every node's confirmation of this revision."""
        ...

    @property
    def managers(self) -> Sequence[str]:
        """HOST:PORT of each one's API."""
        ...

    def node_list(self) -> Sequence[wire.NodeAddress]: ...
    def fence(self) -> wire.Fence: ...
    def steady(self) -> float: ...
    def heard(self, session: Session) -> None: ...
    def may_permit(self, session: Session) -> bool:
        """Whether its exclusive tasks may run on, counted from before now."""
        ...

    def reported(self, session: Session, batch: wire.StatusBatch) -> None: ...
    def confirmed(self, session: Session, revision: int) -> None: ...
    def session_changed(self, session: Session) -> None:
        """`caught_up` or `unapplied_since` is different now."""
        ...


@dataclass(frozen=True, slots=True)
class _Sent:
    seq: int
    revision: int
    at: float
    is_complete: bool


class Session:
    """The servicer feeds `received` and sends what `outgoing` yields."""

    def __init__(self, leadership: Leadership, hello: wire.Hello, *, is_manager: bool, heartbeat_period: float) -> None:
        self.hello = hello
        self.is_manager = is_manager
        self.caught_up = False
        self._leadership = leadership
        self._heartbeat_period = heartbeat_period
        self._wake = asyncio.Event()
        self._closed = False
        self._farewell: wire.ManagerMessage | None = None
        self._assignments = AssignmentSet(hello.node_id)
        self._assignments_due = True
        self._cursor: int | None = None
        self._sent_revision = 0
        self._sent_nodes = -1
        self._sent_standing: wire.Standing | None = None
        self._settled: set[str] = set()
        self._seq = 0
        self._unconfirmed: deque[_Sent] = deque()
        self._acks_due = 0
        self._acks_sent = 0
        self._answer: wire.HeartbeatAck | None = None  # to the last heartbeat
        self._logs: deque[wire.ManagerMessage] = deque()

    @property
    def node_id(self) -> str:
        return self.hello.node_id

    @property
    def unapplied_since(self) -> float | None:
        """Steady seconds."""
        return self._unconfirmed[0].at if self._unconfirmed else None

    @property
    def is_closed(self) -> bool:
        return self._closed

    # What happens to it.

    def received(self, message: wire.AgentMessage) -> None:
        if self._closed:
            return  # another session of the node has taken over, and knows better
        self._leadership.heard(self)
        match message.WhichOneof("body"):
            case "statuses":
                self._leadership.reported(self, message.statuses)
            case "applied":
                self._applied(message.applied)
            case "heartbeat":
                # Decided now and said later: whatever happens in between, the permit counts from when it was sent.
                permit = self._leadership.may_permit(self)
                self._answer = wire.HeartbeatAck(sent_at=message.heartbeat.sent_at, permit=permit)
                self._wake.set()

    def woken(self) -> None:
        """An endpoint update, or who manages the cluster, may be due."""
        self._wake.set()

    def tasks_changed(self, task_ids: Iterable[str]) -> None:
        """Of this node: assigned, changed, gone; or what belongs to them has changed."""
        self._assignments.touch(task_ids)
        self._assignments_due = True
        self._wake.set()

    def networks_changed(self) -> None:
        self._assignments.touch_networks()
        self._assignments_due = True
        self._wake.set()

    def stored(self, batches: int, task_ids: Sequence[str]) -> None:
        self._acks_due = batches
        for task_id in task_ids:
            self._assignments_due |= self._assignments.mention(task_id, self._leadership.world)
        self._wake.set()

    def resend_endpoints(self) -> None:
        """It does not apply what it got: it gets everything anew, and counts again when it has that."""
        self._cursor = None
        self._unconfirmed.clear()
        self.caught_up = False
        self._wake.set()

    def request_logs(self, request: wire.LogRequest) -> None:
        self._logs.append(wire.ManagerMessage(logs=request))
        self._wake.set()

    def cancel_logs(self, request_id: str) -> None:
        self._logs.append(wire.ManagerMessage(cancel_logs=wire.LogCancel(request_id=request_id)))
        self._wake.set()

    def close(self, farewell: wire.ManagerMessage | None = None) -> None:
        """Ends `outgoing`, after this last message."""
        if not self._closed:
            self._closed = True
            self._farewell = farewell
            self._wake.set()

    # What it sends.

    async def outgoing(self) -> AsyncIterator[wire.ManagerMessage]:
        node = self._leadership.world.nodes.get(self.node_id)
        if node is None:
            return  # removed since it was admitted
        welcome = wire.Welcome(node_id=self.node_id, heartbeat_period=self._heartbeat_period, node_number=node.number)
        yield self._fenced(wire.ManagerMessage(welcome=welcome))
        self._wake.set()
        while not self._closed:
            await self._wake.wait()
            self._wake.clear()
            for message in self._owed():
                yield message
        if self._farewell is not None:
            yield self._fenced(self._farewell)

    def _owed(self) -> Iterator[wire.ManagerMessage]:
        """Each is made when the one before it is on its way. Tasks go first: starting them takes longest."""
        if self._assignments_due and not self._closed:
            self._assignments_due = False
            update = self._assignments.update(self._leadership.world, self._leadership.attached_networks)
            if update is not None:
                yield self._fenced(wire.ManagerMessage(assignments=update))
        standing = self._standing()
        if standing != self._sent_standing and standing is not None and not self._closed:
            self._sent_standing = standing
            yield self._fenced(wire.ManagerMessage(standing=standing))
        if not self._closed and len(self._unconfirmed) < WINDOW:
            endpoints = self._endpoints()
            if endpoints is not None:
                yield self._fenced(wire.ManagerMessage(endpoints=endpoints))
        if self._acks_due > self._acks_sent and not self._closed:
            self._acks_sent = self._acks_due
            yield self._fenced(wire.ManagerMessage(status_ack=wire.StatusAck(batches=self._acks_sent)))
        if self._answer is not None and not self._closed:
            answer, self._answer = self._answer, None
            yield self._fenced(wire.ManagerMessage(heartbeat_ack=answer))
        while self._logs and not self._closed:
            yield self._fenced(self._logs.popleft())

    def _standing(self) -> wire.Standing | None:
        node = self._leadership.world.nodes.get(self.node_id)
        return wire.Standing(role=node.spec.role, managers=self._leadership.managers) if node is not None else None

    def _endpoints(self) -> wire.EndpointUpdate | None:
        leadership = self._leadership
        world = leadership.world
        delta = leadership.endpoints.since(self._cursor)
        settled = {t.id for t in world.tasks_of_node(self.node_id) if t.leaving and t.addresses_free}
        new_settled = settled if delta.is_complete else settled - self._settled
        nodes = leadership.node_list_version
        has_nodes = delta.is_complete or nodes != self._sent_nodes
        if not (delta or new_settled or has_nodes or leadership.awaited_revision > self._sent_revision):
            return None
        self._seq += 1
        update = wire.EndpointUpdate(
            seq=self._seq,
            complete=delta.is_complete,
            revision=world.revision,
            services=delta.services,
            removed_services=delta.removed,
            settled_tasks=sorted(new_settled),
            nodes=leadership.node_list() if has_nodes else (),
        )
        self._cursor, self._settled, self._sent_nodes = delta.cursor, settled, nodes
        self._sent_revision = world.revision
        was_idle = not self._unconfirmed
        self._unconfirmed.append(_Sent(self._seq, world.revision, leadership.steady(), delta.is_complete))
        if was_idle:
            leadership.session_changed(self)
        return update

    def _applied(self, applied: wire.Applied) -> None:
        """The agent's word counts for what we sent, not for the number it names."""
        confirmed: _Sent | None = None
        was_complete = False
        while self._unconfirmed and self._unconfirmed[0].seq <= applied.seq:
            confirmed = self._unconfirmed.popleft()
            was_complete |= confirmed.is_complete
        if confirmed is None:
            return
        if self._cursor is not None and (was_complete and not self.caught_up):
            self.caught_up = True
            log.info("node has applied all endpoints", node=self.node_id, revision=confirmed.revision)
            self._leadership.session_changed(self)
        self._leadership.confirmed(self, confirmed.revision)
        self._wake.set()

    def _fenced(self, message: wire.ManagerMessage) -> wire.ManagerMessage:
        message.fence.CopyFrom(self._leadership.fence())
        return message


def node_address(node: pb.Node) -> wire.NodeAddress:
    return wire.NodeAddress(
        node_id=node.id, number=node.number, address=node.address, hostname=node.description.hostname
    )
