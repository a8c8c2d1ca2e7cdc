"""Two manager processes on a real etcd: one leads, and the other is as good when it is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from tests.support.etcd import EtcdProcess, needs_etcd
from tests.support.fake_agent import FakeAgent
from tests.support.manager import eventually
from tests.support.manager_process import ManagerProcess, connect, ready

from pyswarm_core import tls
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

pytestmark = needs_etcd


class Pair:
    def __init__(self, processes: dict[str, ManagerProcess], stubs: dict[str, control_grpc.ControlAsyncStub]) -> None:
        self.processes = processes
        self.stubs = stubs

    async def leader(self) -> str:
        """Its name."""
        for stub in self.stubs.values():
            try:
                address = (await stub.GetInfo(control.Empty(), timeout=2)).leader_address
            except grpc.aio.AioRpcError:
                continue
            return next(name for name, process in self.processes.items() if process.address == address)
        raise AssertionError("no manager answers")

    def other(self, name: str) -> str:
        return next(n for n in self.processes if n != name)


@pytest.fixture
def authority() -> tls.Authority:
    return tls.Authority.create("test")


@pytest.fixture
async def pair(tmp_path: Path, authority: tls.Authority) -> AsyncIterator[Pair]:
    identity = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    async with AsyncExitStack() as stack:
        etcd = stack.enter_context(EtcdProcess(tmp_path, identity=identity))
        processes = {
            name: stack.enter_context(ManagerProcess(tmp_path, authority, [etcd.endpoint], name=name, lease_ttl=2))
            for name in ("manager-1", "manager-2")
        }
        stubs = {
            name: await stack.enter_async_context(connect(authority, process.address))
            for name, process in processes.items()
        }
        for stub in stubs.values():
            await ready(stub)
        yield Pair(processes, stubs)


@pytest.fixture
async def agents(pair: Pair, authority: tls.Authority) -> AsyncIterator[list[FakeAgent]]:
    addresses = [process.address for process in pair.processes.values()]
    made = [
        FakeAgent(
            f"host-{n}",
            authority.issue(common_name=f"host-{n}", role="worker"),
            addresses,
            address=f"10.99.0.{n}",
        )
        for n in (1, 2)
    ]
    async with AsyncExitStack() as stack:
        for agent in made:
            await stack.enter_async_context(agent.running())
        await eventually(lambda: all(agent.applied for agent in made))
        yield made
    for agent in made:
        assert agent.faults == []


def web(replicas: int, env: str = "V=1") -> spec.ServiceSpec:
    container = spec.ContainerSpec(image="registry.test/web@sha256:" + "a" * 64, env=[env])
    update = spec.UpdatePolicy(parallelism=1, monitor=0.05, deadline=60)
    return spec.ServiceSpec(name="web", replicas=replicas, task=spec.TaskSpec(container=container), update=update)


async def finish(stub: control_grpc.ControlAsyncStub, rollout_id: str) -> pb.Rollout:
    last = control.RolloutView()
    async for view in stub.WatchRollout(control.WatchRolloutRequest(rollout_id=rollout_id), timeout=30):
        last = view
    return last.rollout


async def test_any_manager_takes_requests_and_logs_come_through_it(pair: Pair, agents: list[FakeAgent]) -> None:
    follower = pair.other(await pair.leader())
    stub = pair.stubs[follower]
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(4)))
    assert (await finish(stub, created.rollout.id)).state == pb.ROLLOUT_STATE_COMPLETED
    for agent in agents:
        agent.behaviour.log = lambda task_id: [wire.LogLine(task_id=task_id, at=1, line=b"hello")]
    lines = [line.line async for r in stub.Logs(control.LogsRequest(ref="web", tail=-1)) for line in r.lines]
    assert lines == [b"hello"] * 4


async def test_the_leader_is_killed_in_a_rollout_and_the_other_completes_it(
    pair: Pair, agents: list[FakeAgent]
) -> None:
    leader = await pair.leader()
    follower = pair.other(leader)
    stub = pair.stubs[follower]
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(4)))
    await finish(stub, created.rollout.id)
    updated = await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(4, "V=2")))
    watching = asyncio.create_task(finish(stub, updated.rollout.id))
    await eventually(lambda: any(_is_new(t) for a in agents for t in a.running_tasks()))
    pair.processes[leader].kill()
    await eventually(lambda: all(agent.sessions == 2 for agent in agents))
    rollout = await watching
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert rollout.receipt.replaced == 4
    assert sum(_is_new(t) for a in agents for t in a.running_tasks()) == 4
    assert all(count == 1 for agent in agents for count in agent.starts.values())
    assert await pair.leader() == follower


async def test_a_leader_that_was_frozen_is_deposed_and_follows(pair: Pair, agents: list[FakeAgent]) -> None:
    leader = await pair.leader()
    follower = pair.other(leader)
    frozen = pair.processes[leader]
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 10
        while (await pair.stubs[follower].GetInfo(control.Empty())).leader_address == frozen.address:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    created = await pair.stubs[leader].CreateService(control.CreateServiceRequest(spec=web(4)), timeout=10)
    assert (await finish(pair.stubs[leader], created.rollout.id)).state == pb.ROLLOUT_STATE_COMPLETED
    await eventually(lambda: all(a.fence.leader_revision > 0 for a in agents))
    assert (await pair.stubs[leader].GetInfo(control.Empty())).leader_address == pair.processes[follower].address


def _is_new(task: pb.Task) -> bool:
    return list(task.spec.container.env) == ["V=2"]
