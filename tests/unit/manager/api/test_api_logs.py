"""`service logs`: API, leader and agents, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.manager import Cluster, HastyClock, eventually

from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.clock import Clock, SystemClock

RUNNING = pb.TASK_STATE_RUNNING


def line(task_id: str, at: float, text: str = "") -> wire.LogLine:
    return wire.LogLine(task_id=task_id, at=at, line=(text or f"{task_id}@{at:g}").encode())


def task(task_id: str, slot: int, node: str, state: int = pb.TASK_STATE_ASSIGNED) -> pb.Task:
    return pb.Task(
        id=task_id,
        service_id="web",
        service_name="web",
        slot=slot,
        node_id=node,
        desired_state=RUNNING,
        status=pb.TaskStatus(state=state),
    )


@pytest.fixture
def clock() -> Clock:
    return SystemClock()


@pytest.fixture
async def cluster(clock: Clock) -> AsyncIterator[Cluster]:
    async with Cluster.make(clock) as cluster:
        await cluster.put(pb.Service(id="web", spec=spec.ServiceSpec(name="web", replicas=2)))
        await cluster.lead()
        yield cluster
        cluster.check_agents()


@pytest.fixture
async def agents(cluster: Cluster) -> AsyncIterator[list[FakeAgent]]:
    first, second = (cluster.agent(f"n{n}", n, hostname=f"host-{n}") for n in (1, 2))
    async with first.running(), second.running():
        await cluster.put(task("t1", 1, "n1"), task("t2", 2, "n2"))
        await eventually(lambda: len(first.running_tasks()) == len(second.running_tasks()) == 1)
        yield [first, second]


@pytest.fixture
async def stub(cluster: Cluster) -> AsyncIterator[control_grpc.ControlAsyncStub]:
    async with cluster.client() as stub:
        yield stub


class Reader:
    """Collects an answer as it comes."""

    def __init__(self, stub: control_grpc.ControlAsyncStub, **request: object) -> None:
        request.setdefault("ref", "web")
        request.setdefault("tail", -1)
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.sources: dict[str, str] = {}
        self._call = stub.Logs(control.LogsRequest(**request))
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for response in self._call:
            self.sources.update((s.task_id, f"{s.task_name} {s.hostname}") for s in response.sources)
            for one in response.lines:
                assert one.task_id in self.sources, "introduced before its first line"
                self.lines.append(one.line.decode())
            self.warnings += response.warnings

    async def whole(self) -> list[str]:
        await asyncio.wait_for(self.task, 10)
        return self.lines


async def test_lines_of_all_tasks_are_merged_by_time(agents, stub) -> None:
    agents[0].behaviour.log = lambda task_id: [line("t1", at) for at in range(0, 2000, 2)]
    agents[1].behaviour.log = lambda task_id: [line("t2", at) for at in range(1, 2000, 2)]
    reader = Reader(stub)
    lines = await reader.whole()
    assert lines == [f"t{at % 2 + 1}@{at}" for at in range(2000)]
    assert reader.sources == {"t1": "web.1 host-1", "t2": "web.2 host-2"}
    assert reader.warnings == []


async def test_tasks_of_one_host_are_merged_too(cluster, agents, stub) -> None:
    """An agent answers each request by itself: nothing orders the lines of its tasks but us."""
    await cluster.put(task("t3", 3, "n1"))
    await eventually(lambda: len(agents[0].running_tasks()) == 2)
    agents[0].behaviour.log = lambda task_id: [line(task_id, at) for at in range(int(task_id[1]), 300, 4)]
    assert await Reader(stub).whole() == [f"t{at % 4}@{at}" for at in range(300) if at % 4 in (1, 3)]


async def test_tail_since_and_one_task(agents, stub) -> None:
    agents[0].behaviour.log = lambda task_id: [line("t1", at) for at in range(10)]
    agents[1].behaviour.log = lambda task_id: [line("t2", at) for at in range(10)]
    assert await Reader(stub, tail=1).whole() == ["t1@9", "t2@9"]
    assert await Reader(stub, since=8.0, ref="web.1").whole() == ["t1@8", "t1@9"]
    assert await Reader(stub, tail=0).whole() == []


async def test_a_host_that_is_away_is_named_and_the_rest_still_comes(cluster, agents, stub) -> None:
    agents[0].behaviour.log = lambda task_id: [line("t1", 1)]
    down = pb.Node(id="n3", state=pb.NODE_STATE_DOWN, description=pb.NodeDescription(hostname="host-3"))
    await cluster.put(down, task("t3", 3, "n3", RUNNING))
    reader = Reader(stub)
    assert await reader.whole() == ["t1@1"]
    assert reader.warnings == ["host-3 is down: logs of web.3 are missing"]


@pytest.mark.parametrize("clock", [HastyClock()])
async def test_a_host_that_does_not_answer_is_named_and_the_rest_still_comes(agents, stub) -> None:
    agents[0].behaviour.log = lambda task_id: [line("t1", 1)]

    async def silence(request: wire.LogRequest) -> None:
        return

    agents[1]._publish = silence
    reader = Reader(stub)
    assert await reader.whole() == ["t1@1"]
    assert reader.warnings == ["logs of web.2 on host-2 may be incomplete: the host does not answer"]


async def test_followed_lines_come_as_they_are_printed_from_new_tasks_too(cluster, agents, stub) -> None:
    agents[0].behaviour.log = lambda task_id: [line(task_id, 1)]
    reader = Reader(stub, follow=True)
    await eventually(lambda: reader.lines == ["t1@1"])
    await eventually(lambda: all(agent._followers for agent in agents))
    agents[1].print("t2", b"hello")
    await eventually(lambda: reader.lines[1:] == ["hello"])
    agents[0].behaviour.log = lambda task_id: [line(task_id, 2)]
    await cluster.put(task("t9", 3, "n1"))
    await eventually(lambda: "t9@2" in reader.lines)
    await eventually(lambda: len(agents[0]._followers) == 2)
    agents[0].print("t9", b"new here")
    await eventually(lambda: reader.lines[-1] == "new here")
    reader._call.cancel()
    await eventually(lambda: not agents[0]._followers and not agents[1]._followers, "agents are told to stop")


async def test_a_task_can_be_followed_before_it_starts_and_until_it_ends(cluster, agents, stub) -> None:
    agents[0].behaviour.prepare = 0.1
    await cluster.put(task("t5", 5, "n1"))
    reader = Reader(stub, ref="web.5", follow=True)
    await eventually(lambda: any("t5" in tasks for tasks, _ in agents[0]._followers.values()))
    agents[0].print("t5", b"up")
    await eventually(lambda: reader.lines == ["up"])
    for _, queue in agents[0]._followers.values():
        queue.put_nowait(None)  # as an agent does when the container has ended
    await reader.whole()


async def test_following_ends_when_the_service_is_gone(cluster, agents, stub) -> None:
    reader = Reader(stub, follow=True)
    await eventually(lambda: all(agent._followers for agent in agents))
    await cluster.delete(cluster.world.tasks["t1"], cluster.world.tasks["t2"], cluster.world.services["web"])
    for agent in agents:
        for _, queue in agent._followers.values():
            queue.put_nowait(None)  # as an agent does when a task is forgotten
    await reader.whole()


async def test_a_host_that_is_lost_while_it_is_followed_is_named(cluster, agents, stub) -> None:
    reader = Reader(stub, follow=True)
    await eventually(lambda: all(agent._followers for agent in agents))
    assert cluster.term
    session = next(s for s in cluster.term.sessions if s.node_id == "n2")
    session.close()
    await eventually(lambda: reader.warnings)
    assert "host-2" in reader.warnings[0]
    agents[0].print("t1", b"still here")
    await eventually(lambda: reader.lines == ["still here"])
    reader._call.cancel()


async def test_a_reader_that_does_not_read_slows_the_agent_and_nobody_else(cluster, agents, stub) -> None:
    sent = 0

    def endless(task_id: str) -> list[wire.LogLine]:
        nonlocal sent
        sent += 1
        return [line("t1", at, "x" * 10_000) for at in range(3000)]

    agents[0].behaviour.log = endless
    call = stub.Logs(control.LogsRequest(ref="web.1", tail=-1))
    await call.read()
    await eventually(lambda: sent == 1)
    await asyncio.sleep(0.2)
    agents[0].report("t1", message="alive")
    await eventually(lambda: cluster.world.tasks["t1"].status.message == "alive")
    call.cancel()


async def test_errors(cluster, stub) -> None:
    for request, code in (
        (control.LogsRequest(ref="nope"), "NOT_FOUND"),
        (control.LogsRequest(ref="web", tail=-2), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in stub.Logs(request):
                pass
        assert raised.value.code().name == code
    await cluster.step_down()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Logs(control.LogsRequest(ref="web")):
            pass
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_an_agent_cannot_answer_for_another_or_unasked(cluster, agents, stub) -> None:
    assert agents[0]._stub is not None

    async def batches() -> AsyncIterator[wire.LogBatch]:
        yield wire.LogBatch(request_id="made up", lines=[line("t2", 1)])

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agents[0]._stub.PublishLogs(batches())
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
