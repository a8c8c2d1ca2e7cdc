"""An agent without a host: it speaks dispatcher.proto, walks its tasks through their states, and confirms endpoints.

It looks at what a real one relies on, and keeps in `faults` each promise that was broken. Many of them, in one
process, load a manager. (One file, for it is one party with one state.)

    agent = FakeAgent("node-1", authority.issue(common_name="node-1", role="worker"), ["127.0.0.1:2377"])
    async with agent.running(): …
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from pyswarm_core import tls
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import dispatcher_pb2_grpc as wire_grpc
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

LIMIT = 256 << 20  # bytes of one message


@dataclass
class Behaviour:
    """Seconds, and decisions. Change it while the agent runs."""

    prepare: float = 0.0
    turns: asyncio.Semaphore | None = None  # a task is ready when it has got one of these
    start: float = 0.0
    drain: float = 0.0
    applies: bool = True  # confirms endpoints
    heartbeats: bool = True
    # What becomes of a task instead of running: "" = it runs; else why it fails.
    rejects: Callable[[pb.Task], str] = lambda task: ""
    fails: Callable[[pb.Task], str] = lambda task: ""
    # Lines of a task's log; with follow, more may come by `FakeAgent.print`.
    log: Callable[[str], list[wire.LogLine]] = lambda task_id: []


@dataclass
class Held:
    """One task here."""

    task: pb.Task
    status: pb.TaskStatus
    work: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class FakeAgent:
    def __init__(
        self,
        node_id: str,
        identity: tls.Identity,
        managers: list[str],
        *,
        address: str = "10.99.0.1",
        hostname: str = "",
        cpus: int = 64,
        memory: int = 64 << 30,
        labels: dict[str, str] | None = None,
        behaviour: Behaviour | None = None,
        clock: Callable[[], float] = time.time,
        retry: float = 0.05,
    ) -> None:
        self.node_id = node_id
        self.managers = list(managers)
        self.behaviour = behaviour or Behaviour()
        self.hello = wire.Hello(
            node_id=node_id,
            address=address,
            labels=labels or {},
            description=pb.NodeDescription(
                hostname=hostname or node_id,
                platform=spec.Platform(os="linux", architecture="amd64"),
                nano_cpus=cpus * 10**9,
                memory=memory,
                version="test",
            ),
        )
        self.held: dict[str, Held] = {}
        self.networks: dict[str, pb.Network] = {}
        self.auths: dict[str, pb.RegistryAuth] = {}
        self.endpoints: dict[str, ep.ServiceEndpoints] = {}
        self.settled: set[str] = set()
        self.nodes: dict[str, wire.NodeAddress] = {}
        self.applied = 0
        self.starts: dict[str, int] = {}  # task id → how often it was started
        self.sessions = 0
        self.updates: list[wire.EndpointUpdate] = []
        self.welcome: wire.Welcome | None = None
        self.error: grpc.aio.AioRpcError | None = None
        self.faults: list[str] = []
        self.fence = wire.Fence()
        self._clock = clock
        self._retry = retry
        self._identity = identity
        self._credentials = tls.client_credentials(identity)
        self._outbox: asyncio.Queue[wire.AgentMessage] = asyncio.Queue()
        self._unstored: dict[int, int] = {}
        self._stub: wire_grpc.DispatcherAsyncStub | None = None
        self._followers: dict[str, tuple[set[str], asyncio.Queue[wire.LogLine | None]]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._pending_applied: list[wire.EndpointUpdate] = []
        self._assignment_seq = self._endpoint_seq = 0
        self._batches_sent = self._batches_stored = 0
        self._dirty: set[str] = set()
        self._flush = asyncio.Event()

    # For tests.

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeAgent]:
        task = asyncio.create_task(self.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def all_stored(self) -> bool:
        return self._batches_sent == self._batches_stored and not self._dirty

    def running_tasks(self) -> list[pb.Task]:
        return [h.task for h in self.held.values() if h.status.state == pb.TASK_STATE_RUNNING]

    def report(self, task_id: str, **fields: object) -> None:
        """Sets fields of a task's status and reports it, e.g. state=FAILED, error=…"""
        held = self.held[task_id]
        for name, value in fields.items():
            setattr(held.status, name, value)
        held.status.at = self._clock()
        self._say(task_id)

    def print(self, task_id: str, line: bytes) -> None:
        """A line for those who follow."""
        for tasks, queue in self._followers.values():
            if task_id in tasks:
                queue.put_nowait(wire.LogLine(task_id=task_id, at=self._clock(), line=line))

    def confirm_now(self) -> None:
        """What was held back while `applies` was off."""
        pending, self._pending_applied = self._pending_applied, []
        for update in pending:
            self._apply(update)

    async def run(self) -> None:
        """Dials until cancelled."""
        position = 0
        try:
            while True:
                address = self.managers[position % len(self.managers)]
                leader = ""
                try:
                    leader = await self._connect(address)
                    self.error = None
                except grpc.aio.AioRpcError as error:
                    self.error = error
                if leader and leader != address:
                    if leader not in self.managers:
                        self.managers.append(leader)
                    position = self.managers.index(leader)
                    continue
                position += 1
                await asyncio.sleep(self._retry)
        finally:
            tasks = [*self._background, *(h.work for h in self.held.values() if h.work)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The session.

    async def _connect(self, address: str) -> str:
        """One session; returns where the leader is, if told."""
        options = [
            *tls.channel_options(),
            ("grpc.max_receive_message_length", LIMIT),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.secure_channel(address, self._credentials, options=options) as channel:
            self._stub = wire_grpc.DispatcherStub(channel)
            self._outbox = asyncio.Queue()
            self._assignment_seq = self._endpoint_seq = 0
            self._batches_sent = self._batches_stored = 0
            self.hello.last_fence.CopyFrom(self.fence)
            stream = self._stub.Session()
            await stream.write(wire.AgentMessage(hello=self.hello))
            self._dirty = {i for i, h in self.held.items() if h.status.state > pb.TASK_STATE_ASSIGNED}
            sender: asyncio.Task[None] | None = None
            try:
                async for message in stream:
                    if message.HasField("not_leader"):
                        return message.not_leader.address
                    self._check_fence(message.fence)
                    if sender is None:
                        self.sessions += 1
                        sender = asyncio.create_task(self._send(stream))
                    self._receive(message)
            finally:
                if sender is not None:
                    sender.cancel()
                    await asyncio.gather(sender, return_exceptions=True)
                stream.cancel()
        return ""

    async def _send(self, stream: grpc.aio.StreamStreamCall[wire.AgentMessage, wire.ManagerMessage]) -> None:
        beat = asyncio.create_task(self._heartbeat())
        flush = asyncio.create_task(self._batch())
        try:
            while True:
                await stream.write(await self._outbox.get())
        finally:
            beat.cancel()
            flush.cancel()

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self.welcome.heartbeat_period if self.welcome else 1)
            if self.behaviour.heartbeats:
                self._outbox.put_nowait(wire.AgentMessage(heartbeat=wire.Heartbeat()))

    async def _batch(self) -> None:
        """All that has changed since the last batch goes into the next, at once."""
        while True:
            if self._dirty:
                dirty, self._dirty = self._dirty, set()
                updates = [wire.StatusUpdate(task_id=i, status=self.held[i].status) for i in dirty if i in self.held]
                self._batches_sent += 1
                self._outbox.put_nowait(wire.AgentMessage(statuses=wire.StatusBatch(updates=updates)))
            self._flush.clear()
            if not self._dirty:
                await self._flush.wait()

    def _say(self, task_id: str) -> None:
        self._dirty.add(task_id)
        self._flush.set()

    def _check_fence(self, fence: wire.Fence) -> None:
        if (fence.leader_revision, fence.revision) < (self.fence.leader_revision, self.fence.revision):
            self.faults.append(f"fence went back from {self.fence} to {fence}")
        self.fence.CopyFrom(fence)

    def _receive(self, message: wire.ManagerMessage) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self.welcome = message.welcome
            case "assignments":
                self._assigned(message.assignments)
            case "endpoints":
                self._endpoints(message.endpoints)
            case "status_ack":
                self._batches_stored = message.status_ack.batches
            case "logs":
                self._spawn(self._publish(message.logs))
            case "cancel_logs":
                follower = self._followers.get(message.cancel_logs.request_id)
                if follower:
                    follower[1].put_nowait(None)

    # Assignments.

    def _assigned(self, update: wire.AssignmentUpdate) -> None:
        self._assignment_seq += 1
        if update.seq != self._assignment_seq:
            self.faults.append(f"assignment seq {update.seq}, not {self._assignment_seq}")
        if update.complete != (update.seq == 1):
            self.faults.append(f"assignment {update.seq} is {'' if update.complete else 'not '}complete")
        ids = {task.id for task in update.tasks}
        for task_id in [*update.removed_tasks, *((self.held.keys() - ids) if update.complete else ())]:
            self._forget(task_id)
        if update.complete:
            self.networks.clear()
            self.auths.clear()
        self.networks.update((n.id, n) for n in update.networks)
        for network_id in update.removed_networks:
            self.networks.pop(network_id, None)
        self.auths.update((a.id, a) for a in update.auths)
        for task in update.tasks:
            if task.node_id != self.node_id:
                self.faults.append(f"task {task.id} of {task.node_id} was sent here")
            for address in task.addresses:
                if address.network_id not in self.networks:
                    self.faults.append(f"task {task.id} came without its network {address.network_id}")
            held = self.held.get(task.id)
            if held is None:
                held = self.held[task.id] = Held(task, pb.TaskStatus())
                held.status.CopyFrom(task.status)
                if task.status.state >= pb.TASK_STATE_COMPLETE:
                    continue
                if task.status.state > pb.TASK_STATE_ASSIGNED:
                    self.faults.append(f"task {task.id} is new here, but its state is {task.status.state}")
                held.work = asyncio.create_task(self._live(held))
            else:
                held.task = task
                held.changed.set()

    def _forget(self, task_id: str) -> None:
        held = self.held.pop(task_id, None)
        if held is not None and held.work is not None:
            held.work.cancel()

    async def _live(self, held: Held) -> None:
        """The life of one task."""
        self._step(held, pb.TASK_STATE_ACCEPTED, accepted_at=self._clock())
        if held.task.desired_state > pb.TASK_STATE_RUNNING:
            self._step(held, pb.TASK_STATE_SHUTDOWN, stopped_at=self._clock())
            return
        self._step(held, pb.TASK_STATE_PREPARING)
        await asyncio.sleep(self.behaviour.prepare)
        if self.behaviour.turns is not None:
            await self.behaviour.turns.acquire()
        why = self.behaviour.rejects(held.task)
        if why:
            held.status.error = why
            self._step(held, pb.TASK_STATE_REJECTED)
            return
        now = self._clock()
        self._step(held, pb.TASK_STATE_READY, image_at=now, prepared_at=now)
        await self._until(held, lambda t: t.desired_state != pb.TASK_STATE_READY)
        if held.task.desired_state > pb.TASK_STATE_RUNNING:
            self._step(held, pb.TASK_STATE_SHUTDOWN, stopped_at=self._clock())
            return
        self.starts[held.task.id] = self.starts.get(held.task.id, 0) + 1
        if self.starts[held.task.id] > 1:
            self.faults.append(f"task {held.task.id} was started twice")
        self._step(held, pb.TASK_STATE_STARTING)
        await asyncio.sleep(self.behaviour.start)
        why = self.behaviour.fails(held.task)
        if why:
            held.status.error = why
            held.status.exit_code = 1
            held.status.last_lines.append(why)
            self._step(held, pb.TASK_STATE_FAILED, stopped_at=self._clock())
            return
        has_probe = held.task.spec.container.HasField("probe") and not held.task.spec.container.probe.disabled
        held.status.health = pb.HEALTH_HEALTHY if has_probe else pb.HEALTH_NONE
        now = self._clock()
        self._step(held, pb.TASK_STATE_RUNNING, started_at=now, healthy_at=now)
        await self._until(held, lambda t: t.released)
        await asyncio.sleep(self.behaviour.drain)
        now = self._clock()
        held.status.drain.redirected_at = held.task.leaving_at
        self._step(held, pb.TASK_STATE_SHUTDOWN, drained_at=now, stopped_at=now)

    async def _until(self, held: Held, condition: Callable[[pb.Task], bool]) -> None:
        while not condition(held.task):
            held.changed.clear()
            await held.changed.wait()

    def _step(self, held: Held, state: pb.TaskState.ValueType, **timings: float) -> None:
        held.status.state = state
        held.status.at = self._clock()
        for name, at in timings.items():
            setattr(held.status.timings, name, at)
        self._say(held.task.id)

    # Endpoints.

    def _endpoints(self, update: wire.EndpointUpdate) -> None:
        self._endpoint_seq += 1
        if update.seq != self._endpoint_seq:
            self.faults.append(f"endpoint seq {update.seq}, not {self._endpoint_seq}")
        if update.seq == 1 and not update.complete:
            self.faults.append("the first endpoint update is not complete")
        if self._pending_applied or not self.behaviour.applies:
            self._pending_applied.append(update)
        else:
            self._apply(update)

    def _apply(self, update: wire.EndpointUpdate) -> None:
        self.updates.append(update)
        if update.complete:
            self.endpoints.clear()
        self.endpoints.update((s.service_id, s) for s in update.services)
        for service_id in update.removed_services:
            self.endpoints.pop(service_id, None)
        self.settled.update(update.settled_tasks)
        if update.nodes:
            self.nodes = {n.node_id: n for n in update.nodes}
        self.applied = max(self.applied, update.revision)
        self._outbox.put_nowait(wire.AgentMessage(applied=wire.Applied(revision=update.revision, seq=update.seq)))

    # Logs.

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _publish(self, request: wire.LogRequest) -> None:
        assert self._stub is not None
        queue: asyncio.Queue[wire.LogLine | None] = asyncio.Queue()
        self._followers[request.request_id] = (set(request.task_ids), queue)

        def batch(lines: list[wire.LogLine]) -> wire.LogBatch:
            return wire.LogBatch(request_id=request.request_id, node_id=self.node_id, lines=lines)

        async def batches() -> AsyncIterator[wire.LogBatch]:
            yield batch([])
            lines: list[wire.LogLine] = []
            for task_id in request.task_ids:
                own = [line for line in self.behaviour.log(task_id) if line.at >= request.since]
                lines += own if request.tail < 0 else own[len(own) - request.tail :] if request.tail else []
            for line in sorted(lines, key=lambda line: line.at):
                yield batch([line])
            while request.follow and (new := await queue.get()) is not None:
                yield batch([new])

        try:
            await self._stub.PublishLogs(batches())
        except grpc.aio.AioRpcError:
            pass
        finally:
            self._followers.pop(request.request_id, None)
