"""A real manager process on a real etcd, both with TLS, and agents that only speak."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.etcd import EtcdProcess, needs_etcd
from tests.support.fake_agent import FakeAgent
from tests.support.manager import eventually
from tests.support.manager_process import ManagerProcess, connect, ready

from pyswarm_core import tls
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

pytestmark = needs_etcd


@pytest.fixture
def authority() -> tls.Authority:
    return tls.Authority.create("test")


@pytest.fixture
def etcd(tmp_path: Path, authority: tls.Authority) -> Iterator[EtcdProcess]:
    identity = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    with EtcdProcess(tmp_path, identity=identity) as process:
        yield process


@pytest.fixture
def manager(tmp_path: Path, authority: tls.Authority, etcd: EtcdProcess) -> Iterator[ManagerProcess]:
    with ManagerProcess(tmp_path, authority, [etcd.endpoint], log_level="debug") as process:
        yield process
        if process.log.exists() and "traceback" in process.log.read_text():
            raise AssertionError(process.log.read_text()[-5000:])


@pytest.fixture
async def stub(authority: tls.Authority, manager: ManagerProcess) -> AsyncIterator[control_grpc.ControlAsyncStub]:
    async with connect(authority, manager.address) as stub:
        await ready(stub)
        yield stub


@pytest.fixture
async def agents(authority: tls.Authority, manager: ManagerProcess) -> AsyncIterator[list[FakeAgent]]:
    made = [
        FakeAgent(
            f"host-{n}",
            authority.issue(common_name=f"host-{n}", role="worker"),
            [manager.address],
            address=f"10.99.0.{n}",
        )
        for n in (1, 2, 3)
    ]
    async with AsyncExitStack() as stack:
        for agent in made:
            await stack.enter_async_context(agent.running())
        yield made
    for agent in made:
        assert agent.faults == []
        assert all(count == 1 for count in agent.starts.values())


def web(replicas: int, env: str = "V=1", **fields: object) -> spec.ServiceSpec:
    # By digest: nothing here asks a registry.
    container = spec.ContainerSpec(image="registry.test/web:v1@sha256:" + "a" * 64, env=[env])
    update = spec.UpdatePolicy(parallelism=2, monitor=0.1, deadline=60)
    return spec.ServiceSpec(
        name="web",
        replicas=replicas,
        task=spec.TaskSpec(container=container),
        update=update,
        rollback=update,
        ports=[spec.Port(target=80, published=8080)],
        **fields,
    )


async def finish(stub: control_grpc.ControlAsyncStub, rollout_id: str, within: float = 30) -> pb.Rollout:
    last = control.RolloutView()
    async for view in stub.WatchRollout(control.WatchRolloutRequest(rollout_id=rollout_id), timeout=within):
        last = view
    return last.rollout


def _is_new(task: pb.Task) -> bool:
    return list(task.spec.container.env) == ["V=2"]


async def all_ready(stub: control_grpc.ControlAsyncStub, count: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        nodes = (await stub.ListNodes(control.ListRequest())).nodes
        if sum(n.state == pb.NODE_STATE_READY and n.serving for n in nodes) == count:
            return
        assert time.monotonic() < deadline, nodes
        await asyncio.sleep(0.01)


async def test_create_update_and_remove(
    stub: control_grpc.ControlAsyncStub, agents: list[FakeAgent], manager: ManagerProcess
) -> None:
    await all_ready(stub, 3)
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(3)))
    rollout = await finish(stub, created.rollout.id)
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    view = await stub.GetService(control.Ref(ref="web"))
    assert (view.running, view.desired) == (3, 3)
    assert len(view.service.vips) == 1
    assert sorted(len(agent.running_tasks()) for agent in agents) == [1, 1, 1]
    service_id = view.service.id
    for agent in agents:
        assert len(agent.endpoints[service_id].endpoints) == 3
        assert len(agent.networks) == 1

    updated = await stub.UpdateService(
        control.UpdateServiceRequest(ref="web", version=view.service.version, spec=web(3, "V=2"))
    )
    rollout = await finish(stub, updated.rollout.id)
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert rollout.receipt.replaced == 3
    old = [t for t in rollout.receipt.tasks if not t.is_new]
    new = [t for t in rollout.receipt.tasks if t.is_new]
    assert len(old) == len(new) == 3
    assert all(t.leaving_at <= t.out_of_balancers_at <= t.stopped_at for t in old)
    assert all(t.created_at <= t.healthy_at <= t.in_balancers_at for t in new)
    tasks = (await stub.ListTasks(control.ListTasksRequest(services=["web"]))).tasks
    assert [list(t.spec.container.env) for t in tasks] == [["V=2"]] * 3

    await stub.RemoveService(control.Ref(ref="web"))
    deadline = time.monotonic() + 10
    while (await stub.ListServices(control.ListRequest())).services:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await eventually(lambda: all(not agent.held and not agent.endpoints for agent in agents))
    assert not (await stub.ListTasks(control.ListTasksRequest(history=True))).tasks


async def test_a_manager_that_is_killed_in_the_middle_of_a_rollout_completes_it_when_it_is_back(
    stub: control_grpc.ControlAsyncStub, agents: list[FakeAgent], manager: ManagerProcess
) -> None:
    await all_ready(stub, 3)
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(6)))
    assert (await finish(stub, created.rollout.id)).state == pb.ROLLOUT_STATE_COMPLETED
    turns = asyncio.Semaphore(0)
    for agent in agents:
        agent.behaviour.turns = turns
    updated = await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(6, "V=2")))
    for done, more in ((1, 1), (3, 2), (5, 2)):  # kill it when so many new tasks run, and no other can
        for _ in range(more):
            turns.release()
        await eventually(lambda done=done: sum(_is_new(t) for a in agents for t in a.running_tasks()) >= done)
        manager.restart()
        await ready(stub)
        view = await stub.GetService(control.Ref(ref="web"))
        assert view.rollout.state == pb.ROLLOUT_STATE_RUNNING, "it hit the rollout"
    turns.release()
    rollout = await finish(stub, updated.rollout.id)
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert rollout.receipt.replaced == 6
    tasks = (await stub.ListTasks(control.ListTasksRequest(services=["web"]))).tasks
    assert [list(t.spec.container.env) for t in tasks] == [["V=2"]] * 6
    assert sum(len(agent.running_tasks()) for agent in agents) == 6


async def test_it_stops_and_its_successor_leads(
    stub: control_grpc.ControlAsyncStub, agents: list[FakeAgent], manager: ManagerProcess
) -> None:
    await all_ready(stub, 3)
    manager.stop()
    manager.start()
    await ready(stub)
    await eventually(lambda: all(agent.sessions == 2 for agent in agents))


async def test_it_waits_for_etcd_and_survives_its_restart(
    stub: control_grpc.ControlAsyncStub, agents: list[FakeAgent], manager: ManagerProcess, etcd: EtcdProcess
) -> None:
    await all_ready(stub, 3)
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(3)))
    await finish(stub, created.rollout.id)
    etcd.kill()
    manager.restart()
    await asyncio.sleep(1)
    assert {sum(a.starts.values()) for a in agents} == {1}
    etcd.start()
    await ready(stub)
    await eventually(lambda: all(agent.sessions == 2 for agent in agents))
    scaled = await stub.ScaleServices(
        control.ScaleServicesRequest(targets=[control.ScaleServicesRequest.Target(ref="web", replicas=6)])
    )
    rollout = await finish(stub, scaled.services[0].rollout.id)
    assert rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert sum(len(agent.running_tasks()) for agent in agents) == 6
    assert all(count == 1 for agent in agents for count in agent.starts.values())
