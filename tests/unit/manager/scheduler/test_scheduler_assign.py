"""Where tasks are placed, and why not: each filter of nodes."""

from __future__ import annotations

import pytest
from tests.support import build
from tests.support.world import FakeWorld
from tests.unit.manager.scheduler.placing import GIB, NOW, cluster, deploy, messages, per_node, schedule, three

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.service import plan as allocate
from pyswarm_manager.scheduler.assign import plan


def test_assigns_node_address_and_state_in_one_put() -> None:
    world = three()
    deploy(world, build.service_spec(replicas=3))
    found = plan(world, NOW)
    assert len(found.steps) == 1
    world.apply(found)
    task = world.tasks["web-1"]
    assert task.node_id == "host-1"
    assert task.status.state == pb.TASK_STATE_ASSIGNED
    assert task.status.at == NOW
    assert [(a.network_id, a.address) for a in task.addresses] == [("default", "10.128.64.1")]
    assert per_node(world) == {"host-1": 1, "host-2": 1, "host-3": 1}
    blocks = world.networks["default"].blocks
    assert [(b.node_id, b.cidr, b.node_address, b.node_number) for b in blocks] == [
        ("host-1", "10.128.64.0/24", "10.90.0.11", 1),
        ("host-2", "10.128.65.0/24", "10.90.0.12", 2),
        ("host-3", "10.128.66.0/24", "10.90.0.13", 3),
    ]
    assert not plan(world, NOW), "nothing is left to do"


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert not plan(three(), NOW)


def test_waits_for_vips_and_skips_tasks_that_are_not_wanted() -> None:
    world = three()
    service = build.service(build.service_spec(replicas=1))
    del service.vips[:]
    world.put(service)
    world.put(build.task("a", service))
    world.put(build.task("b", service, slot=2, desired=pb.TASK_STATE_SHUTDOWN))
    assert not plan(world, NOW)
    assert plan(world, NOW).wake_at == NOW + 1
    world.apply(allocate(world, "svc", NOW))
    schedule(world)
    assert world.tasks["a"].node_id
    assert not world.tasks["b"].node_id


def test_a_service_without_vips_in_dnsrr_mode_is_placed() -> None:
    world = three()
    wanted = build.service_spec(replicas=1)
    wanted.endpoint_mode = spec.ENDPOINT_MODE_DNSRR
    deploy(world, wanted)
    assert not world.services["web"].vips
    schedule(world)
    assert world.tasks["web-1"].addresses


def test_used_up_vip_range_is_told() -> None:
    world = FakeWorld()
    world.put(build.node("host-1"))
    world.put(
        pb.Network(id="small", spec=spec.NetworkSpec(name="small", subnet="10.9.0.0/26"), vip_range="10.9.0.0/28")
    )
    task = build.task_spec()
    del task.networks[:]
    task.networks.add(network_id="small")
    for n in range(16):
        deploy(world, build.service_spec(f"s{n}", replicas=1, task=task))
    schedule(world)
    assert plan(world, NOW).wake_at == NOW + 10, "another service may have gone by then"
    assert [t.service_name for t in world.tasks.values() if t.status.state == pb.TASK_STATE_PENDING] == ["s15"]
    assert messages(world) == {"no address for the service: the VIP range of network small is used up"}


def test_example_of_the_message() -> None:
    nodes = [
        build.node("host-1", number=1, memory=GIB),
        build.node("host-2", number=2, memory=int(1.2 * GIB)),
        build.node("host-3", number=3, availability=spec.NODE_AVAILABILITY_DRAIN),
    ]
    world = cluster(*nodes)
    wanted = build.service_spec(replicas=2)
    wanted.task.resources.reserve_memory = 4 * GIB
    deploy(world, wanted)
    schedule(world)
    assert messages(world) == {
        "no suitable node: 2 of 3 nodes lack memory (needs 4.0 GiB; most free is 1.2 GiB on host-2); 1 node is drained"
    }
    task = world.tasks["web-1"]
    assert task.status.state == pb.TASK_STATE_PENDING
    assert task.status.at == NOW
    assert not plan(world, NOW + 5), "the same message is not written again"
    node = world.nodes["host-3"]
    node = pb.Node.FromString(node.SerializeToString())
    node.spec.availability = spec.NODE_AVAILABILITY_ACTIVE
    world.put(node)
    schedule(world, NOW + 10)
    assert per_node(world) == {"host-3": 2}
    assert world.tasks["web-1"].status.message == ""


def _each_refusal() -> list[tuple[pb.Node, str]]:
    return [
        (build.node("n", state=pb.NODE_STATE_DOWN), "1 of 1 node is down"),
        (build.node("n", state=pb.NODE_STATE_UNKNOWN), "1 of 1 node is not ready yet"),
        (build.node("n", availability=spec.NODE_AVAILABILITY_DRAIN), "1 of 1 node is drained"),
        (build.node("n", availability=spec.NODE_AVAILABILITY_PAUSE), "1 of 1 node is paused"),
        (build.node("n", labels={"zone": "b"}), "1 of 1 node does not meet constraint node.labels.zone==a"),
        (
            build.node("n", labels={"zone": "a"}, cpus=1),
            "1 of 1 node lacks CPU (needs 1.5; 1 is free on n)",
        ),
        (
            build.node("n", labels={"zone": "a"}, memory=GIB // 2),
            "1 of 1 node lacks memory (needs 1.0 GiB; 512.0 MiB is free on n)",
        ),
    ]


@pytest.mark.parametrize(("node", "says"), _each_refusal())
def test_each_node_filter_explains(node: pb.Node, says: str) -> None:
    world = cluster(node)
    wanted = build.service_spec(replicas=1)
    wanted.task.placement.constraints.append("node.labels.zone==a")
    wanted.task.resources.reserve_nano_cpus = 1_500_000_000
    wanted.task.resources.reserve_memory = GIB
    deploy(world, wanted)
    schedule(world)
    assert messages(world) == {f"no suitable node: {says}"}


def test_platform() -> None:
    world = three()
    wanted = build.service_spec(replicas=1)
    wanted.task.container.platforms.add(os="linux", architecture="arm64", variant="v8")
    deploy(world, wanted)
    schedule(world)
    assert messages(world) == {"no suitable node: 3 of 3 nodes have another platform than the image's (linux/arm64)"}
    wanted = build.service_spec("api", replicas=1)
    wanted.task.container.platforms.add(os="linux", architecture="arm64")
    wanted.task.container.platforms.add(os="linux", architecture="x86_64")
    deploy(world, wanted)
    schedule(world)
    assert sum(per_node(world, "api").values()) == 1


def test_host_ports() -> None:
    world = three()
    wanted = build.service_spec(replicas=4)
    wanted.task.host_ports.add(target=80, published=8080, mode=spec.PUBLISH_MODE_HOST)
    deploy(world, wanted)
    schedule(world)
    assert per_node(world) == {"host-1": 1, "host-2": 1, "host-3": 1}
    assert messages(world) == {"no suitable node: 3 of 3 nodes have host port 8080/tcp in use"}
    other = build.service_spec("dns", replicas=1)
    other.task.host_ports.add(target=80, published=8080, mode=spec.PUBLISH_MODE_HOST, protocol=spec.PROTOCOL_UDP)
    deploy(world, other)
    schedule(world)
    assert sum(per_node(world, "dns").values()) == 1, "the same port of another protocol is another port"


def test_max_replicas_per_node() -> None:
    world = three()
    wanted = build.service_spec(replicas=7)
    wanted.task.placement.max_per_node = 2
    deploy(world, wanted)
    schedule(world)
    assert per_node(world) == {"host-1": 2, "host-2": 2, "host-3": 2}
    assert messages(world) == {"no suitable node: 3 of 3 nodes have 2 replicas already (max replicas per node is 2)"}


def test_max_replicas_per_node_counts_slots_so_that_start_first_can_pass() -> None:
    world = three()
    wanted = build.service_spec(replicas=3)
    wanted.task.placement.max_per_node = 1
    service = deploy(world, wanted)
    schedule(world)
    world.put(build.task("new", service, slot=2, created_at=NOW + 1))
    schedule(world)
    assert world.tasks["new"].node_id == "host-2"


def test_addresses_used_up_is_a_filter() -> None:
    world = FakeWorld()
    world.put(build.node("host-1", number=1), build.node("host-2", number=2))
    subnet = spec.NetworkSpec(name="small", subnet="10.9.0.0/26")
    world.put(pb.Network(id="small", spec=subnet, vip_range="10.9.0.0/28"))
    task = build.task_spec()
    del task.networks[:]
    task.networks.add(network_id="small")
    deploy(world, build.service_spec(replicas=40, task=task))
    schedule(world)
    assert sum(per_node(world).values()) == 12 * 3
    assert messages(world) == {
        "no suitable node: 2 of 2 nodes can get no address on network small, whose blocks are used up"
    }


def test_nodes_without_a_number_do_not_count() -> None:
    world = cluster(build.node("host-1", number=0))
    deploy(world, build.service_spec(replicas=1))
    schedule(world)
    assert messages(world) == {"no suitable node: no node has joined"}


def test_reservations_of_tasks_that_are_not_gone_count() -> None:
    world = cluster(build.node("host-1", memory=4 * GIB))
    wanted = build.service_spec(replicas=1)
    wanted.task.resources.reserve_memory = 3 * GIB
    service = deploy(world, wanted)
    world.put(
        build.task(
            "old", service, slot=9, node_id="host-1", state=pb.TASK_STATE_RUNNING, desired=pb.TASK_STATE_SHUTDOWN
        )
    )
    schedule(world)
    assert messages(world) == {"no suitable node: 1 of 1 node lacks memory (needs 3.0 GiB; 1.0 GiB is free on host-1)"}
    world.put(
        build.task(
            "old", service, slot=9, node_id="host-1", state=pb.TASK_STATE_SHUTDOWN, desired=pb.TASK_STATE_SHUTDOWN
        )
    )
    schedule(world)
    assert per_node(world)["host-1"] == 2


def test_global_tasks_pass_the_filters_of_their_node() -> None:
    world = cluster(
        build.node("host-1", number=1),
        build.node("host-2", number=2, memory=GIB),
        build.node("host-3", number=3, availability=spec.NODE_AVAILABILITY_PAUSE),
    )
    wanted = build.service_spec(mode=spec.SERVICE_MODE_GLOBAL, replicas=0)
    wanted.task.resources.reserve_memory = 2 * GIB
    service = deploy(world, wanted)
    for name in ("host-1", "host-2", "host-3", "host-9"):
        world.put(build.task(f"on-{name}", service, slot=0, node_id=name))
    schedule(world)
    assert world.tasks["on-host-1"].status.state == pb.TASK_STATE_ASSIGNED
    assert world.tasks["on-host-1"].addresses
    texts = {name: world.tasks[f"on-{name}"].status.message for name in ("host-2", "host-3", "host-9")}
    assert texts == {
        "host-2": "no suitable node: host-2 lacks memory (needs 2.0 GiB; 1.0 GiB is free on host-2)",
        "host-3": "no suitable node: host-3 is paused",
        "host-9": "no suitable node: its node is no longer part of the cluster",
    }


def test_a_large_plan_is_cut_into_transactions_with_networks_first() -> None:
    world = cluster(*(build.node(f"host-{n:03}", number=n) for n in range(1, 151)))
    deploy(world, build.service_spec(replicas=300))
    found = plan(world, NOW)
    assert [len(step) for step in found.steps] == [1, 127, 127, 46]
    world.apply(found, steps=2)
    schedule(world)
    assert len(per_node(world)) == 150
    assert set(per_node(world).values()) == {2}


def test_large_specs_do_not_overflow_a_transaction() -> None:
    world = three()
    task = build.task_spec()
    task.container.env.extend(f"BLOB{n}={'x' * 30_000}" for n in range(10))
    deploy(world, build.service_spec(replicas=8, task=task))
    schedule(world)  # FakeWorld refuses too large a transaction
    assert sum(per_node(world).values()) == 8


def test_several_networks_or_none() -> None:
    world = three()
    world.put(pb.Network(id="back", spec=spec.NetworkSpec(name="back", subnet="10.9.0.0/24"), vip_range="10.9.0.0/26"))
    task = build.task_spec()
    task.networks.add(network_id="back")
    deploy(world, build.service_spec(replicas=1, task=task))
    schedule(world)
    assert [(a.network_id, a.address) for a in world.tasks["web-1"].addresses] == [
        ("default", "10.128.64.1"),
        ("back", "10.9.0.65"),
    ]
