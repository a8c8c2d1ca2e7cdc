from __future__ import annotations

import pytest
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.errors import AlreadyExists, Conflict, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import default_network
from pyswarm_manager.allocator.nodes import number
from pyswarm_manager.api import admission_nodes as admission
from pyswarm_manager.plan import Delete, Plan, Put
from pyswarm_manager.scheduler.assign import plan as schedule

NOW = 1000.0


def cluster() -> FakeWorld:
    world = FakeWorld()
    manager = build.node("host-1", number=1)
    manager.spec.role = spec.NODE_ROLE_MANAGER
    world.put(manager, build.node("host-2", number=2), build.node("host-3", number=3, state=pb.NODE_STATE_DOWN))
    world.put(default_network(world, "default", 1.0))
    return world


def test_update_node() -> None:
    world = cluster()
    node = world.nodes["host-2"]
    wanted = spec.NodeSpec(availability=spec.NODE_AVAILABILITY_DRAIN, labels={"com.example/zone": "a"})
    changed = admission.update_node(world, node, wanted, version=node.version)
    assert changed.spec == wanted
    assert changed.version == node.version
    assert changed.description == node.description
    with pytest.raises(Conflict, match="host-2 was changed meanwhile"):
        admission.update_node(world, node, wanted, version=node.version - 1)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (spec.NodeSpec(availability=9), "active, pause or drain"),  # type: ignore[arg-type]
        (spec.NodeSpec(role=9), "worker or manager"),  # type: ignore[arg-type]
        (spec.NodeSpec(labels={"a b": ""}), "'a b' cannot be the name of a node's label"),
        (spec.NodeSpec(labels={"": ""}), "'' cannot be"),
    ],
)
def test_update_node_refuses(wanted: spec.NodeSpec, says: str) -> None:
    world = cluster()
    with pytest.raises(InvalidInput, match=says):
        admission.update_node(world, world.nodes["host-2"], wanted)


def test_the_last_manager_cannot_be_demoted() -> None:
    world = cluster()
    with pytest.raises(PreconditionFailed, match="only manager"):
        admission.update_node(world, world.nodes["host-1"], spec.NodeSpec())
    promoted = admission.update_node(world, world.nodes["host-2"], spec.NodeSpec(role=spec.NODE_ROLE_MANAGER))
    world.put(promoted)
    assert admission.update_node(world, world.nodes["host-1"], spec.NodeSpec()).spec.role == spec.NODE_ROLE_WORKER


def test_remove_node() -> None:
    world = cluster()
    with pytest.raises(PreconditionFailed, match="demote it with `pyswarm node demote host-1` first"):
        admission.remove_node(world, world.nodes["host-1"], force=True, now=NOW)
    with pytest.raises(PreconditionFailed, match="host-2 is not down"):
        admission.remove_node(world, world.nodes["host-2"], force=False, now=NOW)
    world.apply(Plan(steps=(admission.remove_node(world, world.nodes["host-3"], force=False, now=NOW),)))
    assert list(world.nodes) == ["host-1", "host-2"]
    assert [n.hostname for n in world.removed.values()] == ["host-3"], "its certificate is refused from now on"
    assert number(world) == 4, "3 was given once"
    world.apply(Plan(steps=(admission.remove_node(world, world.nodes["host-2"], force=True, now=NOW),)))
    assert number(world) == 4


def test_a_node_that_may_run_an_exclusive_task_is_not_forgotten() -> None:
    world = cluster()
    task = pb.Task(id="t", node_id="host-3", status=pb.TaskStatus(state=pb.TASK_STATE_RUNNING))
    task.spec.exclusive = True
    world.put(task)
    for force in (False, True):
        with pytest.raises(PreconditionFailed, match="host-3 may still run an exclusive task"):
            admission.remove_node(world, world.nodes["host-3"], force=force, now=1.0)
    over = pb.Task()
    over.CopyFrom(world.tasks["t"])
    over.status.state = pb.TASK_STATE_ORPHANED
    world.put(over)
    assert admission.remove_node(world, world.nodes["host-3"], force=False, now=1.0)


def test_create_network() -> None:
    world = cluster()
    network = admission.create_network(world, spec.NetworkSpec(name="back", labels={"a": "b"}), "n", NOW)
    assert (network.id, network.spec.name, network.spec.subnet, network.created_at) == (
        "n",
        "back",
        "10.129.0.0/16",
        NOW,
    )
    assert dict(network.spec.labels) == {"a": "b"}
    with pytest.raises(AlreadyExists, match=r"A network default exists\."):
        admission.create_network(world, spec.NetworkSpec(name="default"), "n", NOW)
    with pytest.raises(InvalidInput, match="cannot be the name of a network"):
        admission.create_network(world, spec.NetworkSpec(name="a b"), "n", NOW)


def test_remove_network() -> None:
    world = cluster()
    with pytest.raises(PreconditionFailed, match="Network default cannot be removed"):
        admission.remove_network(world, world.networks["default"])
    back = world.put(admission.create_network(world, spec.NetworkSpec(name="back"), "back", NOW))
    assert admission.remove_network(world, back) == Delete(back)
    task_spec = build.task_spec()
    task_spec.networks.add(network_id="back")
    service = build.service(build.service_spec(task=task_spec))
    world.put(service)
    with pytest.raises(PreconditionFailed, match="Network back is in use by service web"):
        admission.remove_network(world, back)


def test_a_network_that_a_rollout_may_go_back_to_stays() -> None:
    world = cluster()
    back = world.put(admission.create_network(world, spec.NetworkSpec(name="back"), "back", NOW))
    service = build.service(build.service_spec(), rollout_id="r")
    service.previous_spec.CopyFrom(service.spec)
    service.previous_spec.task.networks.add(network_id="back")
    world.put(service, pb.Rollout(id="r", service_id="svc"))
    with pytest.raises(PreconditionFailed, match="rollout of service web may still go back to network back"):
        admission.remove_network(world, back)
    world.put(pb.Rollout(id="r", service_id="svc", state=pb.ROLLOUT_STATE_COMPLETED))
    assert admission.remove_network(world, back) == Delete(back)


def test_a_network_goes_when_the_last_address_in_it_is_free() -> None:
    world = cluster()
    back = world.put(admission.create_network(world, spec.NetworkSpec(name="back"), "back", NOW))
    task_spec = build.task_spec()
    task_spec.networks.add(network_id="back")
    service = build.service(build.service_spec(task=task_spec))
    service.removing = True
    task = build.task("t", service, node_id="host-1", state=pb.TASK_STATE_RUNNING, desired=pb.TASK_STATE_REMOVE)
    task.addresses.add(network_id="back", address="10.129.64.1")
    world.put(service, task)
    write = admission.remove_network(world, back)
    assert isinstance(write, Put)
    world.apply(Plan(steps=((write,),)))
    marked = world.networks["back"]
    assert marked.removing
    assert admission.remove_network(world, marked) is None
    with pytest.raises(AlreadyExists, match="still being removed"):
        admission.create_network(world, spec.NetworkSpec(name="back"), "n", NOW)
    world.apply(schedule(world, NOW))
    assert "back" in world.networks
    world.delete(world.services["svc"])
    world.apply(schedule(world, NOW))
    assert "back" in world.networks, "the task still has its address"
    world.delete(world.tasks["t"])
    world.apply(schedule(world, NOW))
    assert "back" not in world.networks
