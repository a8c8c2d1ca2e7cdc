"""HTTP service discovery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.scrape import get
from tests.unit.manager.metrics.build import World, figures, node, service, task

from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.scrape import http
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.metrics import Metrics


async def found(world: World, path: str, managers: Sequence[pb.Leader] = ()) -> list[dict[str, Any]]:
    async def living() -> Sequence[pb.Leader]:
        return managers

    async with await http.serve("127.0.0.1:0", Metrics(world, figures(managers=living)).pages()) as server:
        status, headers, body = await get(server.port, path)
    assert status.endswith("200 OK") and headers["content-type"] == "application/json"
    groups: list[dict[str, Any]] = json.loads(body)
    for group in groups:
        assert group.keys() == {"targets", "labels"}
        assert all(isinstance(value, str) for value in group["labels"].values()), "Prometheus takes nothing else"
    return groups


def targets(groups: list[dict[str, Any]]) -> list[str]:
    return [target for group in groups for target in group["targets"]]


async def test_nodes_are_their_agents_and_managers() -> None:
    world = World()
    one, two, three = node("host-1"), node("host-2"), node("host-3", state=pb.NODE_STATE_DOWN)
    one.spec.role = two.spec.role = spec.NODE_ROLE_MANAGER
    one.description.metrics_address = "10.90.0.11:9378"
    two.number, two.address = 2, "10.90.0.12"
    two.description.metrics_address = "10.90.0.12:9400"
    three.number, three.address = 3, "10.90.0.13"
    three.spec.labels["disk.kind"] = "ssd"
    world.put(one, three, two)
    managers = [
        pb.Leader(manager_id="host-1-id", address="10.90.0.11:2377", metrics_address="10.90.0.11:9377"),
        pb.Leader(manager_id="lone", address="10.90.0.14:2377"),
    ]
    groups = await found(world, "/sd/nodes", managers)
    seen = [
        (g["targets"][0], g["labels"]["__meta_pyswarm_component"], g["labels"]["__meta_pyswarm_metrics_open"])
        for g in groups
    ]
    assert seen == [
        ("10.90.0.11:9378", "agent", "true"),
        ("10.90.0.11:9377", "manager", "true"),
        ("10.90.0.12:9400", "agent", "true"),
        ("10.90.0.12:9377", "manager", "true"),  # it is away: where it usually is
        ("10.90.0.13:9378", "agent", "false"),
        ("10.90.0.14:9377", "manager", "false"),
    ]
    last = groups[4]["labels"]
    assert last["__meta_pyswarm_node_hostname"] == "host-3" and last["__meta_pyswarm_node_state"] == "down"
    assert last["__meta_pyswarm_node_label_disk_kind"] == "ssd" and last["__meta_pyswarm_node_role"] == "worker"


async def test_tasks_of_services_that_ask_for_it() -> None:
    world = World()
    web = service("web", 2)
    web.spec.labels.update({"prometheus.port": "8000", "prometheus.path": "stats", "team/name": 'a"b'})
    compose = task("compose")
    compose.spec.container.labels.update({"prometheus.port": "9000"})
    on_down, over = task("web", 3, node="host-2"), task("web", 4, status=pb.TaskStatus(state=pb.TASK_STATE_FAILED))
    world.put(
        node("host-1"),
        node("host-2", state=pb.NODE_STATE_DOWN),
        pb.Network(id="net-id", spec=spec.NetworkSpec(name="default")),
        *(web, service("compose"), service("quiet"), compose, task("quiet"), on_down, over),
        task("web", 2),
        task("web", 1),
    )
    groups = await found(world, "/sd/tasks")
    assert targets(groups) == ["10.128.64.1:9000", "10.128.64.1:8000", "10.128.64.2:8000"]
    labels = groups[2]["labels"]
    assert labels["__metrics_path__"] == "/stats" and groups[0]["labels"]["__metrics_path__"] == "/metrics"
    assert labels["__meta_pyswarm_service_name"] == "web" and labels["__meta_pyswarm_task_id"] == "web-2"
    assert labels["__meta_pyswarm_task_slot"] == "2" and labels["__meta_pyswarm_task_name"] == "web.2"
    assert labels["__meta_pyswarm_node_hostname"] == "host-1" and labels["__meta_pyswarm_network_name"] == "default"
    assert labels["__meta_pyswarm_service_label_team_name"] == 'a"b'


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "", "80,81", "8²"])
async def test_a_port_that_is_none_leaves_the_service_out(port: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    web = service("web")
    web.spec.labels["prometheus.port"] = port
    good = service("good")
    good.spec.labels["prometheus.port"] = " 80 "
    world.put(node("host-1"), web, task("web", 1), task("web", 2), good, task("good"))
    async with await http.serve("127.0.0.1:0", Metrics(world, figures()).pages()) as server:
        for _ in range(3):
            _, _, body = await get(server.port, "/sd/tasks")
            assert targets(json.loads(body)) == ["10.128.64.1:80"]
    assert caplog.text.count("a service is not scraped") == 1, "it is said once"


async def test_no_targets_are_an_empty_list() -> None:
    assert await found(World(), "/sd/tasks") == [] and await found(World(), "/sd/nodes") == []


async def test_a_manager_that_does_not_know_says_so() -> None:
    """Prometheus keeps what it had."""

    async def away() -> Sequence[pb.Leader]:
        raise StoreUnavailable("etcd is away")

    for changes in ({"is_connected": lambda: False}, {"managers": away}):
        async with await http.serve("127.0.0.1:0", Metrics(World(), figures(**changes)).pages()) as server:
            status, _, body = await get(server.port, "/sd/nodes")
            assert status.startswith("HTTP/1.1 503") and "etcd" in body
            assert (await get(server.port, "/metrics"))[0].endswith("200 OK")
