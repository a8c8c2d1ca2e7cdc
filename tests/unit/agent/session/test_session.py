"""The session against a manager over real gRPC and TLS."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_manager import FakeManager
from tests.unit.agent.fakes import until

from pyswarm_agent.applier import Mark
from pyswarm_agent.session import Session, SessionOver
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.session_grpc import GrpcConnector
from pyswarm_agent.session_status import StatusBox
from pyswarm_core import tls
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb


class MemoryFences:
    def __init__(self) -> None:
        self.fence = (0, 0)

    def set_fence(self, fence: tuple[int, int]) -> None:
        self.fence = fence


class Ear:
    """A listener that keeps what it heard."""

    def __init__(self) -> None:
        self.welcomes: list[wire.Welcome] = []
        self.assignments: list[wire.AssignmentUpdate] = []
        self.endpoints: list[wire.EndpointUpdate] = []
        self.marks: list[Mark] = []
        self.stored_updates: list[wire.StatusUpdate] = []
        self.logs: list[tuple[str, str]] = []
        self.fails = False

    def hello(self) -> wire.Hello:
        return wire.Hello(node_id="n1", address="10.0.0.1")

    def welcomed(self, welcome: wire.Welcome) -> None:
        self.welcomes.append(welcome)

    def assigned(self, update: wire.AssignmentUpdate) -> None:
        if self.fails:
            self.fails = False
            raise RuntimeError("a fault of the agent's own")
        self.assignments.append(update)

    def balanced(self, update: wire.EndpointUpdate, mark: Mark) -> None:
        self.endpoints.append(update)
        self.marks.append(mark)

    def stored(self, updates: list[wire.StatusUpdate]) -> None:
        self.stored_updates += updates

    def logs_wanted(self, request: wire.LogRequest, address: str) -> None:
        self.logs.append((request.request_id, address))

    def stands(self, standing: wire.Standing) -> None:
        self.standing = standing

    def removed(self) -> None:
        self.was_removed = True

    def logs_cancelled(self, request_id: str) -> None:
        self.logs.append((request_id, ""))


class Noted:
    """Permits as they come."""

    def __init__(self) -> None:
        self.sent_at: list[float] = []
        self.every = 3600.0

    def period(self) -> float:
        return self.every

    def renewed(self, sent_at: float) -> None:
        self.sent_at.append(sent_at)


class Agent:
    def __init__(self, manager: FakeManager, *managers: str) -> None:
        self.ear = Ear()
        self.permits = Noted()
        self.fences = MemoryFences()
        self.box = StatusBox(time.monotonic)
        dialer = Dialer(managers or [manager.address], random.Random(1))
        connector = GrpcConnector(manager.agent_tls("n1"))
        self.session = Session(connector, dialer, self.box, self.fences, self.ear, permits=self.permits)
        self.running = asyncio.create_task(self.session.run())

    def report(self, task_id: str, state: pb.TaskState.ValueType, message: str = "") -> None:
        status = pb.TaskStatus(state=state, message=message)
        self.box.put(wire.StatusUpdate(task_id=task_id, status=status))

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.Authority.create()


@pytest_asyncio.fixture
async def managers(authority: tls.Authority, tmp_path: Path) -> AsyncIterator[Callable[[], FakeManager]]:
    made: list[FakeManager] = []

    def make() -> FakeManager:
        made.append(FakeManager(authority, tmp_path))
        return made[-1]

    yield make
    for manager in made:
        await manager.stop()


@pytest_asyncio.fixture
async def pair(managers: Callable[[], FakeManager]) -> AsyncIterator[tuple[FakeManager, Agent]]:
    manager = managers()
    await manager.start()
    agent = Agent(manager)
    yield manager, agent
    await agent.close()


async def test_hello_welcome_sets_and_confirmation(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    session = await manager.next_session()
    assert session.hello.node_id == "n1" and session.hello.address == "10.0.0.1"
    session.assign([pb.Task(id="t1")], complete=True)
    session.balance(complete=True, revision=90)
    await until(lambda: agent.ear.endpoints and agent.ear.assignments)
    assert agent.ear.welcomes[0].node_number == 1 and agent.session.address == manager.address
    assert agent.session.lost_at is None
    await asyncio.sleep(0.02)
    assert not session.applied, "nothing is confirmed by itself"
    agent.session.confirm(agent.ear.marks[-1])
    await until(lambda: session.applied)
    assert (session.applied[0].revision, session.applied[0].seq) == (90, 1)
    session.balance(revision=91)
    session.balance(revision=92)
    await until(lambda: len(agent.ear.marks) == 3)
    agent.session.confirm(agent.ear.marks[-1])
    await until(lambda: len(session.applied) == 2)
    assert session.applied[1].seq == 3, "the newest one is enough"
    assert agent.fences.fence == (10, 100)


async def test_statuses_come_together_and_again_until_they_are_stored(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    manager.acknowledges = False
    session = await manager.next_session()
    agent.report("a", pb.TASK_STATE_PREPARING)
    agent.report("b", pb.TASK_STATE_PREPARING)
    agent.report("a", pb.TASK_STATE_READY)
    await until(lambda: session.batches)
    assert [(u.task_id, u.status.state) for u in session.batches[0].updates] == [
        ("a", pb.TASK_STATE_READY),
        ("b", pb.TASK_STATE_PREPARING),
    ]
    agent.report("a", pb.TASK_STATE_RUNNING)
    await until(lambda: len(session.batches) == 2)
    session.acknowledge(1)
    await until(lambda: len(agent.ear.stored_updates) == 2)
    session.end()
    session = await manager.next_session()
    await until(lambda: session.batches)
    assert [(u.task_id, u.status.state) for u in session.batches[0].updates] == [("a", pb.TASK_STATE_RUNNING)]
    session.acknowledge(1)
    await until(lambda: agent.box.unstored == 0)


async def test_a_permit_counts_from_when_the_heartbeat_was_sent(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    session = await manager.next_session()
    await until(lambda: session.heartbeats == 1, what="one at once: a task may be waiting for a permit")
    for permit in (False, True):
        session.send(wire.ManagerMessage(heartbeat_ack=wire.HeartbeatAck(sent_at=session.last_beat, permit=permit)))
    await until(lambda: agent.permits.sent_at)
    assert agent.permits.sent_at == [session.last_beat]
    assert 0 < session.last_beat <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_heartbeats_come_more_often_where_permits_need_it_whatever_else_is_sent(
    pair: tuple[FakeManager, Agent],
) -> None:
    manager, agent = pair
    session = await manager.next_session()
    agent.permits.every = 0.05
    number = 0

    def heard() -> bool:
        nonlocal number
        number += 1
        agent.report("a", pb.TASK_STATE_RUNNING, f"message {number}")
        return session.heartbeats >= 4

    await until(heard)


async def test_a_leader_that_stops_answering_is_left_for_another(pair: tuple[FakeManager, Agent]) -> None:
    """Its connection may stand: a process that is frozen keeps it."""
    manager, agent = pair
    agent.permits.every = 0.05
    session = await manager.next_session()
    await until(lambda: session.heartbeats == 1)
    agent.session.answer_within = 0.2
    session.send(wire.ManagerMessage(heartbeat_ack=wire.HeartbeatAck(sent_at=session.last_beat)))
    await manager.next_session()
    assert agent.permits.sent_at == []


async def test_heartbeats(pair: tuple[FakeManager, Agent]) -> None:
    manager, _ = pair
    session = await manager.next_session()
    manager.heartbeat_period = 0.05
    session.end()
    session = await manager.next_session()
    await until(lambda: session.heartbeats >= 3)


async def test_a_manager_that_restarts_is_found_again(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    await manager.next_session()
    await manager.stop()
    await until(lambda: agent.session.lost_at is not None)
    await asyncio.sleep(0.5)
    await manager.start()
    await manager.next_session()
    await until(lambda: agent.session.lost_at is None)


async def test_an_older_leader_is_not_obeyed(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    session = await manager.next_session()
    session.assign([], complete=True)
    await until(lambda: agent.ear.assignments)
    manager.fence = (10, 99)  # for the next session: the same leader, but from before what it had said
    session.send(wire.ManagerMessage(assignments=wire.AssignmentUpdate(seq=2)), fence=(9, 500))
    await until(lambda: session.ended)
    assert len(agent.ear.assignments) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await manager.next_session()
            await until(lambda: len(agent.ear.welcomes) == 2)
    manager.fence = (11, 5)
    await until(lambda: len(agent.ear.welcomes) == 2)
    assert agent.fences.fence == (11, 5)


@pytest.mark.parametrize("what", ["gap", "incomplete", "fault"])
async def test_what_cannot_be_trusted_ends_the_session(pair: tuple[FakeManager, Agent], what: str) -> None:
    manager, agent = pair
    session = await manager.next_session()
    if what == "gap":
        session.assign([], complete=True)
        session.assign([], seq=3)
    elif what == "incomplete":
        session.assign([])
    else:
        agent.ear.fails = True
        session.assign([], complete=True)
    again = await manager.next_session()
    again.assign([], complete=True)
    await until(lambda: agent.ear.assignments and agent.ear.assignments[-1].complete)


async def test_it_goes_where_the_leader_is(managers: Callable[[], FakeManager]) -> None:
    follower, leader, other = managers(), managers(), managers()
    for manager in (follower, leader, other):
        await manager.start()
    follower.leader = leader.address
    agent = Agent(follower, follower.address, "127.0.0.1:1")
    try:
        session = await leader.next_session()
        other.fence = (20, 200)
        leader.leader = other.address
        session.send(wire.ManagerMessage(not_leader=wire.NotLeader(address=other.address)))
        await other.next_session()
        await until(lambda: agent.session.address == other.address)
    finally:
        await agent.close()


async def test_a_manager_of_another_cluster_is_refused(managers: Callable[[], FakeManager], tmp_path: Path) -> None:
    ours = managers()
    stranger = FakeManager(tls.Authority.create(), tmp_path)
    await stranger.start()
    await ours.start()
    agent = Agent(ours, stranger.address, ours.address)
    try:
        await ours.next_session()
        assert not stranger.sessions
    finally:
        await agent.close()
        await stranger.stop()


async def test_log_requests_are_handed_on(pair: tuple[FakeManager, Agent]) -> None:
    manager, agent = pair
    session = await manager.next_session()
    session.send(wire.ManagerMessage(logs=wire.LogRequest(request_id="r")))
    session.send(wire.ManagerMessage(cancel_logs=wire.LogCancel(request_id="r")))
    await until(lambda: agent.ear.logs == [("r", manager.address), ("r", "")])


async def test_a_stream_that_has_ended_still_tells_why(managers: Callable[[], FakeManager]) -> None:
    """Written to before it was looked at: the reason is that of the manager, not gRPC's about the write."""
    manager = managers()
    manager.refusal = "Node n1 was removed."
    await manager.start()
    stream = await GrpcConnector(manager.agent_tls("n1")).open(manager.address)
    await stream.write(wire.AgentMessage(hello=wire.Hello(node_id="n1")))
    try:
        with pytest.raises(SessionOver, match="was removed"):
            await stream.read()
        with pytest.raises(SessionOver, match="was removed") as over:
            await stream.write(wire.AgentMessage())
        assert over.value.removed
    finally:
        await stream.close()
