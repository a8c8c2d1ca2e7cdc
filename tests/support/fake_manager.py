"""A manager that does what a test tells it: the real Dispatcher service by gRPC and TLS, without store or planners."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import grpc.aio

from pyswarm_core import tls
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import dispatcher_pb2_grpc as rpc
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb


class FakeSession:
    """One agent's session, as the manager sees it."""

    def __init__(self, manager: FakeManager, hello: wire.Hello) -> None:
        self.hello = hello
        self.statuses: dict[str, pb.TaskStatus] = {}  # the newest of each task
        self.history: dict[str, list[pb.TaskStatus]] = {}
        self.adopted: dict[str, pb.Task] = {}
        self.batches: list[wire.StatusBatch] = []
        self.applied: list[wire.Applied] = []
        self.heartbeats = 0
        self.last_beat = 0.0
        self.ended = False
        self.outbox: asyncio.Queue[wire.ManagerMessage | None] = asyncio.Queue()
        self._manager = manager
        self._seqs = {"assignments": 0, "endpoints": 0}

    def send(self, message: wire.ManagerMessage, *, fence: tuple[int, int] | None = None) -> None:
        leader, revision = fence or self._manager.fence
        message.fence.CopyFrom(wire.Fence(leader_revision=leader, revision=revision))
        self.outbox.put_nowait(message)

    def assign(
        self,
        tasks: Iterable[pb.Task] = (),
        *,
        complete: bool = False,
        removed: Iterable[str] = (),
        networks: Iterable[pb.Network] = (),
        auths: Iterable[pb.RegistryAuth] = (),
        seq: int | None = None,
    ) -> None:
        update = wire.AssignmentUpdate(
            seq=self._next("assignments", seq),
            complete=complete,
            tasks=tasks,
            removed_tasks=removed,
            networks=networks,
            auths=auths,
        )
        self.send(wire.ManagerMessage(assignments=update))

    def balance(
        self,
        services: Iterable[ep.ServiceEndpoints] = (),
        *,
        revision: int = 0,
        complete: bool = False,
        removed: Iterable[str] = (),
        settled: Iterable[str] = (),
        nodes: Iterable[wire.NodeAddress] = (),
        seq: int | None = None,
    ) -> None:
        update = wire.EndpointUpdate(
            seq=self._next("endpoints", seq),
            complete=complete,
            revision=revision or self._manager.fence[1],
            services=services,
            removed_services=removed,
            settled_tasks=settled,
            nodes=nodes,
        )
        self.send(wire.ManagerMessage(endpoints=update))

    def acknowledge(self, batches: int) -> None:
        self.send(wire.ManagerMessage(status_ack=wire.StatusAck(batches=batches)))

    def end(self) -> None:
        self.outbox.put_nowait(None)

    def _next(self, kind: str, seq: int | None) -> int:
        self._seqs[kind] = seq if seq is not None else self._seqs[kind] + 1
        return self._seqs[kind]

    def received(self, message: wire.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                self.heartbeats += 1
                self.last_beat = message.heartbeat.sent_at
            case "applied":
                self.applied.append(message.applied)
            case "statuses":
                self.batches.append(message.statuses)
                for update in message.statuses.updates:
                    self.statuses[update.task_id] = update.status
                    self.history.setdefault(update.task_id, []).append(update.status)
                    if update.HasField("adopted"):
                        self.adopted[update.task_id] = update.adopted
                if self._manager.acknowledges:
                    self.acknowledge(len(self.batches))


class FakeManager(rpc.DispatcherServicer):
    """`fence` is what every message carries. With `leader` it answers NotLeader with that address; with `refusal` it
    refuses the node."""

    def __init__(self, authority: tls.Authority, folder: Path, listen: str = "127.0.0.1") -> None:
        self._listen = listen
        self.authority = authority
        self.fence = (10, 100)
        self.leader: str | None = None
        self.refusal = ""  # of a node that was removed
        self.acknowledges = True
        self.heartbeat_period = 5.0
        self.node_number = 1
        self.sessions: list[FakeSession] = []
        self.logs: dict[str, list[wire.LogBatch]] = {}
        self.log_streams_ended: list[str] = []
        self.port = 0
        self._arrivals: asyncio.Queue[FakeSession] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None
        self._identity = authority.issue(common_name="m1", role="manager")
        self._folder = folder

    @property
    def address(self) -> str:
        return f"{self._listen}:{self.port}"

    def agent_tls(self, node_id: str) -> Path:
        """A folder with the certificate of an agent."""
        folder = self._folder / f"tls-{node_id}"
        self.authority.issue(common_name=node_id, role="worker").save(folder)
        return folder

    async def start(self) -> None:
        """On the port that it had before, if it had one."""
        self._server = grpc.aio.server()
        rpc.add_DispatcherServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port(f"{self._listen}:{self.port}", tls.server_credentials(self._identity))
        await self._server.start()

    async def stop(self, grace: float = 0.0) -> None:
        if self._server is not None:
            for session in self.sessions:
                session.end()
            await self._server.stop(grace)
            self._server = None

    async def next_session(self, timeout: float = 10.0) -> FakeSession:
        return await asyncio.wait_for(self._arrivals.get(), timeout)

    async def Session(
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: Any
    ) -> AsyncIterator[wire.ManagerMessage]:
        hello = (await anext(aiter(request_iterator))).hello
        if self.refusal:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refusal, (("pyswarm-removed", "1"),))
        if self.leader is not None:
            yield wire.ManagerMessage(not_leader=wire.NotLeader(address=self.leader))
            return
        session = FakeSession(self, hello)
        self.sessions.append(session)
        session.send(
            wire.ManagerMessage(
                welcome=wire.Welcome(
                    node_id=hello.node_id, heartbeat_period=self.heartbeat_period, node_number=self.node_number
                )
            )
        )
        self._arrivals.put_nowait(session)

        async def read() -> None:
            async for message in request_iterator:
                session.received(message)

        reading = asyncio.create_task(read())
        reading.add_done_callback(lambda _: session.end())
        try:
            while (message := await session.outbox.get()) is not None:
                yield message
        finally:
            session.ended = True
            reading.cancel()

    async def PublishLogs(
        self, request_iterator: AsyncIterator[wire.LogBatch], context: Any
    ) -> wire.PublishLogsResponse:
        request_id = ""
        try:
            async for batch in request_iterator:
                request_id = batch.request_id
                self.logs.setdefault(request_id, []).append(batch)
        finally:
            self.log_streams_ended.append(request_id)
        return wire.PublishLogsResponse()
