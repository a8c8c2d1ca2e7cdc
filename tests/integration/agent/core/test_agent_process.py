"""The real agent as a process, on a real host out of namespaces, with a scripted manager: one busybox task from its
assignment until nothing is left of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.agent.core.onehost import IMAGE, OneHost, missing, one_host
from tests.support.fake_manager import FakeSession

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(180)]
ADDRESS, VIP = "10.140.64.2", "10.140.0.2"


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[OneHost]:
    with one_host(tmp_path) as made:
        yield made


async def until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never within {timeout} s: {what}"
        await asyncio.sleep(0.01)


def network(bed: OneHost) -> pb.Network:
    made = pb.Network(id="net1", vni=4242, vip_range="10.140.0.0/18")
    made.spec.name, made.spec.subnet = "default", "10.140.0.0/16"
    made.blocks.add(node_id=bed.node_id, node_number=1, cidr="10.140.64.0/24", node_address=bed.host.address)
    return made


def task(bed: OneHost, task_id: str, command: list[str], address: str = ADDRESS) -> pb.Task:
    made = pb.Task(
        id=task_id,
        service_id="s1",
        service_name="web",
        slot=1,
        node_id=bed.node_id,
        desired_state=pb.TASK_STATE_RUNNING,
        created_at=time.time(),
    )
    made.status.state = pb.TASK_STATE_ASSIGNED
    container = made.spec.container
    container.image, container.digest = IMAGE, bed.digest
    container.entrypoint.values.extend(command)
    container.env.append("WHO={{.Task.Name}} on {{.Node.Hostname}}")
    container.stop_grace = 2.0
    made.spec.drain_timeout = 5.0
    made.spec.networks.add(network_id="net1")
    made.addresses.add(network_id="net1", address=address)
    return made


def told(task: pb.Task, **changes: object) -> pb.Task:
    copy = pb.Task()
    copy.CopyFrom(task)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def service(bed: OneHost, *tasks: pb.Task, leaving: bool = False) -> ep.ServiceEndpoints:
    made = ep.ServiceEndpoints(service_id="s1", name="web", mode=spec.ENDPOINT_MODE_VIP)
    made.vips.add(network_id="net1", address=VIP)
    made.networks.add(network_id="net1", aliases=["www"])
    made.ports.add(protocol=spec.PROTOCOL_TCP, target=80, published=8080)
    for each in tasks:
        endpoint = made.endpoints.add(task_id=each.id, node_id=bed.node_id, slot=1, weight=1, task_name="web.1")
        endpoint.addresses.extend(each.addresses)
        endpoint.state = ep.ENDPOINT_STATE_LEAVING if leaving else ep.ENDPOINT_STATE_SERVING
    return made


async def welcome(bed: OneHost, *tasks: pb.Task, services: tuple[ep.ServiceEndpoints, ...] = ()) -> FakeSession:
    session = await bed.manager.next_session(30)
    session.assign(tasks, complete=True, networks=[network(bed)])
    node = wire.NodeAddress(node_id=bed.node_id, number=1, address=bed.host.address, hostname="host-1")
    session.balance(services, complete=True, nodes=[node])
    return session


def state(session: FakeSession, task_id: str) -> int:
    return session.statuses[task_id].state if task_id in session.statuses else -1


HTTPD = ["httpd", "-f", "-p", "80", "-h", "/www"]


async def test_one_task_for_its_whole_life(bed: OneHost) -> None:
    await bed.manager.start()
    try:
        await bed.start_agent()
        web = task(bed, "web1", HTTPD)
        web.spec.container.probe.http.port = 80
        web.spec.container.probe.http.path = "/"
        session = await welcome(bed, web)
        assert session.hello.description.hostname == "host-1" and session.hello.description.memory > 10**8
        await until(lambda: state(session, "web1") == pb.TASK_STATE_RUNNING, "web1 runs")
        status = session.statuses["web1"]
        assert status.health == pb.HEALTH_HEALTHY and status.pid > 0
        session.balance([service(bed, web)], revision=105)
        await until(lambda: session.applied and session.applied[-1].revision == 105, "105 is applied")
        for target in (f"{ADDRESS}:80", f"{VIP}:80", "127.0.0.1:8080", f"{bed.host.address}:8080"):
            code, output = await bed.inside("curl", "-s", "-m", "3", f"http://{target}/")
            assert (code, output) == (0, "hello from a task\n"), target

        # The agent is killed: nothing happens to the task, and the next agent has it at once.
        pid = status.pid
        await bed.end_agent(signal.SIGKILL)
        code, _ = await bed.inside("curl", "-s", "-m", "3", f"http://{VIP}/")
        assert code == 0, "traffic flows without an agent"
        await bed.start_agent()
        session = await welcome(bed, web, services=(service(bed, web),))
        await until(lambda: state(session, "web1") == pb.TASK_STATE_RUNNING, "web1 is adopted")
        assert session.statuses["web1"].pid == pid
        await until(lambda: bool(session.applied), "the complete set is applied")

        # SIGTERM: the same, without loss
        await bed.end_agent(signal.SIGTERM)
        code, _ = await bed.inside("curl", "-s", "-m", "3", f"http://{VIP}/")
        assert code == 0
        await bed.start_agent()
        session = await welcome(bed, web, services=(service(bed, web),))
        await until(lambda: bool(session.applied), "the complete set is applied again")

        leaving = told(web, desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True)
        session.assign([leaving])
        session.balance([service(bed, web, leaving=True)], revision=110)
        await until(lambda: session.applied[-1].revision == 110, "the redirect is applied")
        await until(
            lambda: "web1" in session.statuses and session.statuses["web1"].drain.redirected_at > 0, "it is told"
        )
        session.assign([told(leaving, released=True)])
        await until(lambda: state(session, "web1") == pb.TASK_STATE_SHUTDOWN, "web1 is stopped")
        drain = session.statuses["web1"].drain
        assert (drain.late_connections, drain.open_at_stop) == (0, 0)
        session.assign(removed=["web1"])
        session.balance(removed=["s1"], settled=["web1"], revision=120)
        await until(lambda: session.applied[-1].revision == 120, "it is gone from the balancer")
        assert await bed.leftovers() == ""
        log = bed.agent_log()
        assert "Traceback" not in log, log[-4000:]
    finally:
        await bed.manager.stop()


async def test_names_logs_and_ends(bed: OneHost) -> None:
    await bed.manager.start()
    try:
        await bed.start_agent()
        web = task(bed, "web1", HTTPD)
        asks = task(
            bed, "asks", ["sh", "-c", "echo $WHO; nslookup web; wget -q -O - http://www/; exit 3"], "10.140.64.3"
        )
        asks.service_id, asks.service_name = "s2", "asks"
        asks.desired_state = pb.TASK_STATE_READY
        hungry = task(bed, "hungry", ["sh", "-c", "x=aaaaaaaa; while true; do x=$x$x; done"], "10.140.64.4")
        hungry.service_id, hungry.service_name = "s3", "hungry"
        hungry.spec.resources.limit_memory = 16 * 2**20
        wrong = task(bed, "wrong", ["no-such-command"], "10.140.64.5")
        checked = task(bed, "checked", ["sleep", "1000"], "10.140.64.6")
        checked.service_id, checked.service_name = "s5", "checked"
        checked.spec.container.probe.command.values.extend(["sh", "-c", "echo not yet; false"])
        checked.spec.container.probe.interval, checked.spec.container.probe.retries = 0.3, 2
        deaf = task(bed, "deaf", ["sleep", "1000"], "10.140.64.7")
        deaf.service_id, deaf.service_name = "s6", "deaf"
        deaf.spec.container.probe.tcp.port = 81
        deaf.spec.container.probe.interval, deaf.spec.container.probe.retries = 0.3, 2
        session = await welcome(bed, web, asks, hungry, wrong, checked, deaf)
        await until(lambda: state(session, "web1") == pb.TASK_STATE_RUNNING, "web1 runs")
        await until(lambda: state(session, "asks") == pb.TASK_STATE_READY, "asks is ready")
        session.balance([service(bed, web)], revision=105)
        await until(lambda: session.applied and session.applied[-1].revision == 105, "105 is applied")
        session.assign([told(asks, desired_state=pb.TASK_STATE_RUNNING)])
        await until(lambda: state(session, "asks") == pb.TASK_STATE_FAILED, "asks has ended")
        status = session.statuses["asks"]
        assert status.error == "exited with code 3" and status.exit_code == 3
        text = "\n".join(status.last_lines)
        assert "asks.1 on host-1" in text and VIP in text and "hello from a task" in text, text
        await until(lambda: state(session, "hungry") == pb.TASK_STATE_FAILED, "hungry is killed")
        assert session.statuses["hungry"].error == "killed: it used more than its memory limit of 16.0 MiB"
        await until(lambda: state(session, "wrong") >= pb.TASK_STATE_COMPLETE, "wrong cannot be")
        assert "no-such-command" in session.statuses["wrong"].error
        await until(lambda: state(session, "checked") == pb.TASK_STATE_FAILED, "its probe does not pass")
        assert session.statuses["checked"].error == "its probe never passed: not yet"
        await until(lambda: state(session, "deaf") == pb.TASK_STATE_FAILED, "nobody listens")
        assert session.statuses["deaf"].error == "its probe never passed: 10.140.64.7:81: Connection refused"

        request = wire.LogRequest(request_id="r1", task_ids=["asks", "web1"], tail=-1)
        session.send(wire.ManagerMessage(logs=request))
        await until(lambda: "r1" in bed.manager.log_streams_ended, "the logs have come")
        lines = [line.line.decode() for batch in bed.manager.logs["r1"] for line in batch.lines]
        assert "asks.1 on host-1" in lines and "hello from a task" in lines

        session.assign(complete=False, removed=["web1", "asks", "hungry", "wrong", "checked", "deaf"])
        deadline = time.monotonic() + 20
        while left := await bed.leftovers():
            assert time.monotonic() < deadline, left
        assert "Traceback" not in bed.agent_log()
    finally:
        await bed.manager.stop()
