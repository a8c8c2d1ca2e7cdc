"""A whole agent on a host of tables, with a manager over real gRPC and TLS."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_manager import FakeManager, FakeSession
from tests.unit.agent.fakes import FakeHost, until
from tests.unit.agent.tasks.build import make_task, told

from pyswarm_agent.app_agent import Agent, Parts
from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import Records
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.session_grpc import GrpcConnector
from pyswarm_agent.tasks.request import Here
from pyswarm_core import tls
from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb

NODE = wire.NodeAddress(node_id="n1", number=1, address="10.0.0.1")


class FakeNames:
    inputs: NetworkInputs | None = None

    def update(self, inputs: NetworkInputs) -> None:
        self.inputs = inputs


class FakePublisher:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def start(self, request: wire.LogRequest, address: str) -> None:
        self.calls.append(("start", request.request_id))

    def cancel(self, request_id: str) -> None:
        self.calls.append(("cancel", request_id))

    def cancel_all(self) -> None:
        pass


class Running:
    """One life of an agent; `kill` ends it without a word to anybody."""

    def __init__(self, host: FakeHost, manager: FakeManager, path: Path) -> None:
        self.host, self.manager = host, manager
        self.journal = Journal(path / "journal")
        self.journal.open()
        self.names, self.publisher = FakeNames(), FakePublisher()
        parts = Parts(
            records=Records(self.journal),
            runtime=host.runtime,
            images=host.images,
            links=host.links,
            network=host.network,
            probes=host.probes,
            ports=host.ports,
            logs=host.logs,
            names=self.names,
            connector=GrpcConnector(manager.agent_tls("n1")),
            publisher=self.publisher,
            here=Here("n1", "host-1", "169.254.1.1"),
            hello=lambda: wire.Hello(node_id="n1", address="10.0.0.1"),
            fuses=host.fuses,
            boot_id="3f0c",
        )
        self.agent = Agent(parts, Dialer([manager.address], random.Random(1)))
        self.work = asyncio.create_task(self.agent.run())

    def state(self, task_id: str = "t1") -> int:
        life = self.agent.tasks.life(task_id)
        return life.status.state if life is not None else -1

    async def kill(self) -> None:
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)
        self.journal.close()


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.Authority.create()


@pytest_asyncio.fixture
async def manager(authority: tls.Authority, tmp_path: Path) -> AsyncIterator[FakeManager]:
    made = FakeManager(authority, tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def start(manager: FakeManager, tmp_path: Path) -> AsyncIterator[Callable[[FakeHost], Running]]:
    made: list[Running] = []

    def build(host: FakeHost) -> Running:
        made.append(Running(host, manager, tmp_path))
        return made[-1]

    yield build
    for running in made:
        await running.kill()


def web(*task_ids: str, leaving: tuple[str, ...] = ()) -> ep.ServiceEndpoints:
    service = ep.ServiceEndpoints(service_id="s1", name="web")
    for task_id in (*task_ids, *leaving):
        state = ep.ENDPOINT_STATE_LEAVING if task_id in leaving else ep.ENDPOINT_STATE_SERVING
        service.endpoints.add(task_id=task_id, node_id="n1", state=state)
    return service


async def welcome(manager: FakeManager, *tasks: pb.Task, services: tuple[ep.ServiceEndpoints, ...] = ()) -> FakeSession:
    session = await manager.next_session()
    session.assign(tasks, complete=True)
    session.balance(services, complete=True, nodes=[NODE])
    return session


Start = Callable[[FakeHost], Running]


async def test_a_task_from_assignment_to_release(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    running = start(host)
    task = make_task()
    session = await welcome(manager, task)
    await until(lambda: "t1" in session.statuses and session.statuses["t1"].state == pb.TASK_STATE_RUNNING)
    session.balance([web("t1")], revision=105)
    await until(lambda: session.applied and session.applied[-1].revision == 105)
    assert host.network.inputs is not None and host.network.inputs.tasks["t1"].status.state == pb.TASK_STATE_RUNNING
    assert running.names.inputs is host.network.inputs

    # out: leaving is confirmed, and only the release stops it
    leaving = told(task, desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True)
    session.assign([leaving])
    session.balance([web(leaving=("t1",))], revision=110)
    await until(lambda: session.applied[-1].revision == 110)
    await until(lambda: session.statuses["t1"].drain.redirected_at == 50.0)
    assert host.runtime.containers["t1"].running
    session.assign([told(leaving, released=True)])
    await until(lambda: session.statuses["t1"].state == pb.TASK_STATE_SHUTDOWN)
    session.assign(removed=["t1"])
    session.balance(removed=["s1"], settled=["t1"], revision=120)
    await until(host.is_empty)
    await until(lambda: session.applied[-1].revision == 120)
    states = [s.state for s in session.history["t1"]]
    assert states == sorted(states) and host.runtime.starts == {"t1": 1}


async def test_nothing_is_confirmed_before_the_kernel_has_it(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    start(host)
    session = await welcome(manager)
    await until(lambda: len(session.applied) == 1)
    host.network.gate.clear()
    session.balance([web("x")], revision=105)
    session.balance([web("y")], revision=106)
    await asyncio.sleep(0.05)
    assert len(session.applied) == 1
    host.network.failures = [RuntimeError("the kernel says no")]
    host.network.gate.set()
    await until(lambda: session.applied[-1].revision == 106)
    assert len(session.applied) <= 3
    assert host.network.inputs is not None
    assert host.network.inputs.endpoints["s1"].endpoints[0].task_id == "y"


async def test_a_restart_without_managers_keeps_tasks_and_balancer(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    running = start(host)
    session = await welcome(manager, make_task(), services=(web("t1"),))
    await until(lambda: session.applied and running.state() == pb.TASK_STATE_RUNNING)
    await manager.stop()
    await running.kill()
    host.network.inputs = None
    running = start(host)
    await until(lambda: host.network.inputs is not None)
    assert host.network.inputs is not None and host.network.inputs.node_number == 1
    assert host.network.inputs.endpoints["s1"] == web("t1") and list(host.network.inputs.nodes) == [NODE]
    assert running.state() == pb.TASK_STATE_RUNNING and host.runtime.containers["t1"].running

    # it returns, with the same set: nothing happens; what it had not heard of is told
    await manager.start()
    stored = make_task()
    stored.status.state = pb.TASK_STATE_STARTING
    session = await welcome(manager, stored, services=(web("t1"),))
    await until(lambda: session.applied)
    await until(lambda: "t1" in session.statuses)
    assert session.statuses["t1"].state == pb.TASK_STATE_RUNNING and host.runtime.starts == {"t1": 1}


async def test_what_is_not_in_the_complete_set_is_stopped(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    running = start(host)
    session = await welcome(manager, make_task())
    await until(lambda: running.state() == pb.TASK_STATE_RUNNING)
    session.end()
    session = await welcome(manager)
    await until(host.is_empty)
    assert not running.agent.tasks.lives()


async def test_a_removed_node_stops_all_and_sends_nobody_anywhere(manager: FakeManager, start: Start) -> None:
    running = start(FakeHost())
    await welcome(manager, make_task(), services=(web("t1"),))
    await until(lambda: running.state() == pb.TASK_STATE_RUNNING)
    running.agent.removed()
    running.agent.removed()  # told again at each attempt
    await until(lambda: not running.host.runtime.containers)
    assert not running.agent.view.endpoints and not running.agent.view.networks


async def test_what_it_is_to_be_and_who_manages_is_kept(manager: FakeManager, start: Start) -> None:
    running = start(FakeHost())
    session = await welcome(manager)
    session.send(wire.ManagerMessage(standing=wire.Standing(managers=["10.0.0.9:2377", manager.address])))
    await until(lambda: Records(running.journal).standing)
    running.agent.session.renew()
    again = await manager.next_session()
    assert again is not session, "another certificate, another session"


async def test_a_task_that_dies_is_buried_and_told(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    running = start(host)
    session = await welcome(manager, make_task(), services=(web("t1"),))
    await until(lambda: session.applied and running.state() == pb.TASK_STATE_RUNNING)
    host.runtime.finish("t1", 9)
    await until(lambda: "t1" in session.statuses and session.statuses["t1"].state == pb.TASK_STATE_FAILED)
    assert host.network.died == ["t1"]
    await until(lambda: host.network.inputs is not None and host.network.inputs.dead == {"t1"})
    session.assign([told(make_task(), addresses_free=True)])
    await until(lambda: host.network.inputs is not None and not host.network.inputs.tasks)


async def test_credentials_are_used_and_not_written_down(manager: FakeManager, start: Start, tmp_path: Path) -> None:
    host = FakeHost()
    start(host)
    session = await manager.next_session()
    auth = pb.RegistryAuth(id="s1", host="registry.lab:5000", username="u", password="very-secret")
    session.assign([make_task()], complete=True, auths=[auth])
    session.balance(complete=True, nodes=[NODE])
    await until(lambda: host.images.auths)
    assert host.images.auths[0] == auth
    await until(lambda: session.statuses.get("t1") and session.statuses["t1"].state == pb.TASK_STATE_RUNNING)
    assert b"very-secret" not in (tmp_path / "journal").read_bytes()


async def test_logs(manager: FakeManager, start: Start) -> None:
    running = start(FakeHost())
    session = await welcome(manager)
    session.send(wire.ManagerMessage(logs=wire.LogRequest(request_id="r1")))
    session.send(wire.ManagerMessage(cancel_logs=wire.LogCancel(request_id="r1")))
    await until(lambda: running.publisher.calls == [("start", "r1"), ("cancel", "r1")])


async def test_kills_of_the_agent_at_random(manager: FakeManager, start: Start) -> None:
    """Ten tasks come up while the agent is killed again and again; each is started once."""
    rng = random.Random(7)
    host = FakeHost()
    host.runtime.delay = 0.01
    tasks = [make_task(f"t{i}") for i in range(10)]
    for i, task in enumerate(tasks):
        task.addresses[0].address = f"10.128.64.{i + 2}"
    running = start(host)
    for _ in range(6):
        session = await welcome(manager, *tasks)
        await asyncio.sleep(rng.random() * 0.05)
        await running.kill()
        running = start(host)
    session = await welcome(manager, *tasks)
    await until(lambda: all(running.state(t.id) == pb.TASK_STATE_RUNNING for t in tasks))
    assert host.runtime.starts == {t.id: 1 for t in tasks}
    await until(
        lambda: {i for i, s in session.statuses.items() if s.state == pb.TASK_STATE_RUNNING} == {t.id for t in tasks}
    )
    session.assign(removed=[t.id for t in tasks])
    await until(host.is_empty)


async def test_without_managers_a_dead_task_is_succeeded_and_taken_over(manager: FakeManager, start: Start) -> None:
    host = FakeHost()
    running = start(host)
    task = make_task(created_at=10.0)
    task.spec.restart.delay = 0.01
    service = web("t1")
    service.endpoints[0].addresses.extend(task.addresses)
    session = await welcome(manager, task, services=(service,))
    await until(lambda: session.applied and running.state() == pb.TASK_STATE_RUNNING)
    await manager.stop()
    await until(lambda: running.agent.session.lost_at is not None)
    running.agent.session.lost_at = time.monotonic() - 60  # as if they had been away for a minute
    host.runtime.finish("t1", 1)
    first = derived_id("successor", "t1", "1")
    await until(lambda: running.state(first) == pb.TASK_STATE_RUNNING)
    assert host.links.links == {first: ("10.128.64.2",)}
    await until(lambda: host.network.inputs is not None and first in _endpoints(host)), "this host's balancer has it"

    # it dies, too, and the agent is killed: the second successor has the first one's place
    host.runtime.finish(first, 1)
    await running.kill()
    running = start(host)
    running.agent.session.lost_at = time.monotonic() - 60
    second = derived_id("successor", "t1", "2")
    await until(lambda: running.state(second) == pb.TASK_STATE_RUNNING)
    await until(lambda: running.agent.tasks.life(first) is None)

    # the managers return: the set has the dead task alone, and the successor stays
    await manager.start()
    task.status.state = pb.TASK_STATE_RUNNING
    session = await welcome(manager, task, services=(service,))
    await until(lambda: second in session.adopted)
    assert session.adopted[second].predecessor_id == "t1"
    updates = [u.task_id for batch in session.batches for u in batch.updates]
    assert updates.index("t1") < updates.index(second) and session.statuses["t1"].state == pb.TASK_STATE_FAILED
    await until(lambda: not running.agent.tasks._tools.lives.made_here())
    assert host.runtime.containers[second].running

    # a complete set that has it, and one that has it no more
    taken_over = told(session.adopted[second])
    taken_over.status.CopyFrom(session.statuses[second])
    session.end()
    session = await welcome(manager, taken_over)
    await until(lambda: session.applied)
    assert host.runtime.containers[second].running and running.agent.tasks.life("t1") is None
    session.end()
    await welcome(manager)
    await until(host.is_empty)
    assert host.runtime.starts == {"t1": 1, first: 1, second: 1}


def _endpoints(host: FakeHost) -> set[str]:
    assert host.network.inputs is not None
    return {e.task_id for s in host.network.inputs.endpoints.values() for e in s.endpoints}
