from __future__ import annotations

import pytest

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.wakes import all_keys, service_key, service_of, wakes
from pyswarm_manager.world import CachedWorld, Change


def world() -> CachedWorld:
    world = CachedWorld()
    on_net = spec.TaskSpec(networks=[spec.NetworkAttachment(network_id="net")])
    for service in (
        pb.Service(id="web", spec=spec.ServiceSpec(task=on_net)),
        pb.Service(id="db"),
        pb.Service(id="everywhere", spec=spec.ServiceSpec(mode=spec.SERVICE_MODE_GLOBAL)),
    ):
        world.on_change("service", service.id, None, service)
    for task in (pb.Task(id="w1", service_id="web", node_id="n1"), pb.Task(id="x1", service_id="gone", node_id="n2")):
        world.on_change("task", task.id, None, task)
    world.on_revision(1)
    return world


def task(state: int, **fields: object) -> pb.Task:
    return pb.Task(id="w1", service_id="web", node_id="n1", status=pb.TaskStatus(state=state), **fields)


def woken(old: pb.Task | None, new: pb.Task | None) -> set[str]:
    return wakes(Change("task", "w1", old, new), world())


WEB = "service/web"


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        (None, task(pb.TASK_STATE_NEW), {WEB, "scheduler"}),
        (task(pb.TASK_STATE_NEW), task(pb.TASK_STATE_PENDING), {WEB, "scheduler"}),
        (task(pb.TASK_STATE_PENDING), task(pb.TASK_STATE_ASSIGNED), {WEB}),
        (task(pb.TASK_STATE_PREPARING), task(pb.TASK_STATE_READY), {WEB}),
        (task(pb.TASK_STATE_STARTING), task(pb.TASK_STATE_RUNNING), {WEB, "drain"}),
        (task(pb.TASK_STATE_RUNNING), task(pb.TASK_STATE_RUNNING, leaving=True), {WEB, "drain"}),
        (task(pb.TASK_STATE_RUNNING), task(pb.TASK_STATE_FAILED), {WEB, "drain", "scheduler"}),
        (task(pb.TASK_STATE_PREPARING), task(pb.TASK_STATE_REJECTED), {WEB, "drain", "scheduler"}),
        (task(pb.TASK_STATE_FAILED), task(pb.TASK_STATE_FAILED, addresses_free=True), {WEB, "drain", "scheduler"}),
        (
            task(pb.TASK_STATE_READY),
            task(pb.TASK_STATE_READY, desired_state=pb.TASK_STATE_SHUTDOWN),
            {WEB, "drain", "scheduler"},
        ),
        (task(pb.TASK_STATE_FAILED), None, {WEB, "drain", "scheduler"}),
    ],
)
def test_task(old: pb.Task | None, new: pb.Task | None, keys: set[str]) -> None:
    assert woken(old, new) == keys


def test_a_node_wakes_its_own_services_and_all_global_ones() -> None:
    change = Change("node", "n1", None, pb.Node(id="n1"))
    assert wakes(change, world()) == {"scheduler", "drain", WEB, "service/everywhere"}


def test_a_network_wakes_its_services() -> None:
    assert wakes(Change("network", "net", None, pb.Network(id="net")), world()) == {"scheduler", WEB}


def test_service_and_rollout_wake_the_service_also_when_they_go() -> None:
    assert wakes(Change("service", "web", pb.Service(id="web"), None), world()) == {WEB, "scheduler"}
    assert wakes(Change("rollout", "r", pb.Rollout(id="r", service_id="web"), None), world()) == {WEB}


def test_the_scheduler_looks_when_a_services_use_of_addresses_changes_and_only_then() -> None:
    def woken_by(**fields: object) -> set[str]:
        return wakes(Change("service", "web", pb.Service(id="web"), pb.Service(id="web", **fields)), world())

    published = spec.ServiceSpec(ports=[spec.Port(target=80, published=8080)])
    for fields in ({"vips": [pb.Vip(address="10.0.0.1")]}, {"spec": published}, {"removing": True}):
        assert woken_by(**fields) == {WEB, "scheduler"}
    assert woken_by(spec=spec.ServiceSpec(replicas=7)) == {WEB}


def test_credentials_wake_nobody() -> None:
    assert wakes(Change("registryauth", "web", None, pb.RegistryAuth(id="web")), world()) == set()


def test_a_new_leader_looks_at_everything_even_at_tasks_whose_service_is_gone() -> None:
    services = {service_key(i) for i in ("web", "db", "everywhere", "gone")}
    assert all_keys(world()) == {"scheduler", "drain"} | services


def test_keys_can_be_read_back() -> None:
    assert service_of(service_key("abc")) == "abc"
    assert service_of("drain") is None
