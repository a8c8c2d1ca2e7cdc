"""What the agent tells of its tasks, containers and connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.support.scrape import Scrape, get, parse
from tests.unit.agent.tasks.build import make_task

from pyswarm_agent import metrics
from pyswarm_agent.metrics_readings import GroupFigures, LinkFigures, Readings
from pyswarm_agent.session import SessionOver
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.scrape import http
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.counters import Traffic

NOW = 1000.0
GROUP = GroupFigures(cpu=1.5, memory=4096, working_set=1024, threads=3, oom_kills=1, memory_limit=1 << 20)
LINK = LinkFigures(1000, 10, 0, 1, 2000, 20, 2, 0)


class Kernel:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    def read(self, task_ids: Sequence[str]) -> Readings:
        self.asked = list(task_ids)
        if self.fails:
            raise OSError("no groups")
        return Readings(dict.fromkeys(task_ids, GROUP), dict.fromkeys(task_ids, LINK))


class Agent:
    """`metrics` of an agent whose state is set by hand."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.by_task: dict[str, Traffic] = {}
        self.by_service: dict[str, Traffic] = {}
        self.names = {"s1": "web"}
        self.now = NOW
        self.fails = False
        self.kernel = Kernel()
        figures = metrics.Figures(
            lives=lambda: self.lives,
            is_connected=lambda: True,
            unstored=lambda: 2,
            ack_lag=lambda: 0.5,
            apply_failures=lambda: 4,
            service_name=lambda service_id: self.names.get(service_id, ""),
            traffic=self._traffic,
            dns_queries=lambda: 7,
            firewall_warnings=lambda: 1,
        )
        self.metrics = metrics.Metrics(figures, self.kernel, node="host-1", clock=lambda: self.now)

    async def _traffic(self) -> tuple[Mapping[str, Traffic], Mapping[str, Traffic]]:
        if self.fails:
            raise OSError("no counters")
        return self.by_task, self.by_service

    def becomes(self, life: Life) -> None:
        self.lives[life.id] = life
        self.metrics.changed(life)
        if life.phase is Phase.FORGOTTEN:
            del self.lives[life.id]

    async def scrape(self) -> Scrape:
        return parse((await self.metrics.text()).decode())


def life(phase: Phase, task_id: str = "t1", state: int = pb.TASK_STATE_RUNNING, **status: Any) -> Life:
    task = make_task(task_id)
    task.spec.resources.reserve_memory = 512
    timings = pb.Timings(accepted_at=1, image_at=2, prepared_at=4, started_at=7, healthy_at=11)
    return Life(task=task, phase=phase, status=pb.TaskStatus(state=state, timings=timings, **status))


async def test_figures_of_the_agent() -> None:
    agent = Agent()
    agent.metrics.applied(0.004)
    agent.becomes(life(Phase.RUNNING))
    found = await agent.scrape()
    for name, value in {
        "session_up": 1,
        "statuses_unstored": 2,
        "apply_lag_seconds": 0.5,
        "apply_failures_total": 4,
        "apply_seconds_count": 1,
        "dns_queries_total": 7,
        "firewall_warnings": 1,
        "connect_errors_total": 0,
    }.items():
        assert found.value(f"pyswarm_agent_{name}") == value, name
    assert found.value("pyswarm_agent_tasks", state="running") == 1
    assert found.value("pyswarm_agent_tasks", state="failed") == 0


async def test_stages_and_ends_are_counted_once() -> None:
    agent = Agent()
    for state in (pb.TASK_STATE_ASSIGNED, pb.TASK_STATE_READY, pb.TASK_STATE_RUNNING, pb.TASK_STATE_RUNNING):
        agent.becomes(life(Phase.RUNNING, state=state))
    agent.becomes(life(Phase.CLEANING, state=pb.TASK_STATE_FAILED, oom=True))
    agent.becomes(life(Phase.DONE, state=pb.TASK_STATE_FAILED, oom=True))
    agent.becomes(life(Phase.CLEANING, "found after a restart", state=pb.TASK_STATE_FAILED, oom=True))
    found = await agent.scrape()
    stages = ("image", "prepare", "start", "healthy")
    assert [found.value("pyswarm_agent_task_stage_seconds_sum", stage=s) for s in stages] == [1, 2, 3, 4]
    assert found.value("pyswarm_agent_tasks_started_total") == 1
    assert found.value("pyswarm_agent_tasks_ended_total", state="failed") == 1
    assert found.value("pyswarm_agent_tasks_ended_total", state="complete") == 0
    assert found.value("pyswarm_service_oom_kills_total", service="web") == 1
    agent.becomes(life(Phase.FORGOTTEN))
    assert not agent.metrics._seen.keys() - {"found after a restart"}


async def test_containers_have_cadvisors_names() -> None:
    agent = Agent()
    agent.becomes(life(Phase.RUNNING))
    agent.becomes(life(Phase.PULLING, "t2", pb.TASK_STATE_ACCEPTED))
    agent.becomes(life(Phase.DONE, "t3", pb.TASK_STATE_FAILED))
    found = await agent.scrape()
    assert agent.kernel.asked == ["t1"], "only what has a container is measured"
    own = {
        "id": "/pyswarm/t1",
        "image": "docker.io/library/web:latest",
        "name": "web.1",
        "service": "web",
        "task": "t1",
        "slot": "1",
        "node": "host-1",
    }
    for name, value in {
        "container_memory_usage_bytes": 4096,
        "container_memory_working_set_bytes": 1024,
        "container_spec_memory_limit_bytes": 1 << 20,
        "container_spec_memory_reservation_limit_bytes": 512,
        "container_oom_events_total": 1,
        "container_threads": 3,
        "container_start_time_seconds": 7,
    }.items():
        assert found.samples[name] == {frozenset(own.items()): value}, name
    assert found.samples["container_cpu_usage_seconds_total"] == {frozenset({**own, "cpu": "total"}.items()): 1.5}
    received = found.samples["container_network_receive_bytes_total"]
    assert received == {frozenset({**own, "interface": "eth0"}.items()): 1000}
    assert found.value("container_network_transmit_errors_total") == 2
    assert not found.samples["container_memory_swap"], "what the kernel does not count is left out"
    agent.becomes(life(Phase.FORGOTTEN))
    assert not (await agent.scrape()).samples["container_memory_usage_bytes"]


async def test_a_global_services_task_is_named_after_its_host() -> None:
    agent = Agent()
    one = life(Phase.RUNNING)
    one.task.slot = 0
    agent.becomes(one)
    assert (await agent.scrape()).has("container_threads", name="web.host-1", slot="0")


async def test_traffic_of_backends_and_services() -> None:
    agent = Agent()
    agent.becomes(life(Phase.RUNNING))
    agent.by_task = {"t1": Traffic(3, 10, 20, 1), "unknown": Traffic(1, 1, 1, 1)}
    agent.by_service = {"s1": Traffic(5, 11, 21, 2), "gone": Traffic(9, 9, 9, 9)}
    found = await agent.scrape()
    backend = {"service": "web", "task": "t1", "slot": "1", "name": "web.1", "node": "host-1"}
    for name, one, all_of_them in (
        ("connections_total", 3, 5),
        ("receive_bytes_total", 10, 11),
        ("transmit_bytes_total", 20, 21),
        ("resets_total", 1, 2),
    ):
        assert found.samples[f"pyswarm_backend_{name}"] == {frozenset(backend.items()): one}
        assert found.samples[f"pyswarm_service_{name}"] == {frozenset({("service", "web")}): all_of_them}
    assert found.value("pyswarm_backend_draining_seconds", task="t1") == 0
    assert found.value("pyswarm_backend_ack_lag_seconds", task="t1") == 0


async def test_a_task_that_leaves_waits_for_all_nodes() -> None:
    agent = Agent()
    agent.by_task = {"t1": Traffic()}
    one = life(Phase.RUNNING)
    one.task.leaving, one.task.leaving_at = True, NOW - 4
    agent.becomes(one)
    assert (await agent.scrape()).value("pyswarm_backend_ack_lag_seconds", task="t1") == 4
    one.task.released = True
    assert (await agent.scrape()).value("pyswarm_backend_ack_lag_seconds", task="t1") == 0


async def test_drains() -> None:
    agent = Agent()
    agent.by_task = {"t1": Traffic()}
    agent.becomes(life(Phase.RUNNING))
    agent.becomes(life(Phase.DRAINING))
    agent.now += 3
    agent.becomes(life(Phase.DRAINING))
    found = await agent.scrape()
    assert found.value("pyswarm_backend_draining_seconds", task="t1") == 3
    assert found.value("pyswarm_service_drains_total", service="web") == 0
    agent.now += 2
    report = pb.DrainReport(open_at_stop=4, late_connections=6)
    agent.becomes(life(Phase.STOPPING, drain=report))
    agent.becomes(life(Phase.KILLING, drain=report))
    agent.becomes(life(Phase.CLEANING, state=pb.TASK_STATE_SHUTDOWN, drain=report))
    agent.becomes(life(Phase.FORGOTTEN))
    agent.by_task = {}
    found = await agent.scrape()
    assert not found.samples["pyswarm_backend_draining_seconds"]
    assert found.value("pyswarm_service_drains_total", service="web") == 1
    assert found.value("pyswarm_service_drain_seconds_total", service="web") == 5
    assert found.value("pyswarm_service_cut_connections_total", service="web") == 4
    assert found.value("pyswarm_service_late_connections_total", service="web") == 6
    assert found.value("pyswarm_agent_drain_seconds_sum") == 5
    agent.names.clear()  # the service is removed
    found = await agent.scrape()
    assert not found.samples["pyswarm_service_drains_total"]
    agent.names["s1"] = "web"
    assert not (await agent.scrape()).samples["pyswarm_service_drains_total"], "and forgotten"


async def test_what_cannot_be_read_does_not_hide_the_rest() -> None:
    agent = Agent()
    agent.becomes(life(Phase.RUNNING))
    agent.by_task = {"t1": Traffic()}
    agent.fails = True
    found = await agent.scrape()
    assert found.samples["container_threads"] and not found.samples["pyswarm_backend_connections_total"]
    agent.fails, agent.kernel.fails = False, True
    found = await agent.scrape()
    assert not found.samples["container_threads"] and found.samples["pyswarm_backend_connections_total"]


async def test_over_http() -> None:
    agent = Agent()
    async with await http.serve("127.0.0.1:0", agent.metrics.pages()) as server:
        status, headers, body = await get(server.port, "/metrics")
        assert status.endswith("200 OK") and headers["content-type"].startswith("text/plain; version=0.0.4")
        assert parse(body).value("pyswarm_agent_session_up") == 1
        assert (await get(server.port, "/sd/nodes"))[0].startswith("HTTP/1.1 404")


async def test_connecting_is_timed() -> None:
    class Connector:
        fails = False

        async def open(self, address: str) -> Any:
            if self.fails:
                raise SessionOver("nobody there")
            return address

    agent, inner = Agent(), Connector()
    connector = metrics.MeteredConnector(inner, agent.metrics.connected)
    assert await connector.open("m:1") == "m:1"  # type: ignore[comparison-overlap]
    inner.fails = True
    with pytest.raises(SessionOver):
        await connector.open("m:1")
    found = await agent.scrape()
    assert found.value("pyswarm_agent_connect_seconds_count") == 1
    assert found.value("pyswarm_agent_connect_errors_total") == 1


def test_readings_are_values() -> None:
    assert replace(GROUP, cpu=2.0) != GROUP
