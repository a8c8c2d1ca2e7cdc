from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.addresses import Addresses
from pyswarm_manager.allocator.networks import admit, default_network
from pyswarm_manager.scheduler.assign import plan as schedule

NOW = 1000.0
SERVICE = build.service(build.service_spec())


def cluster(subnet: str = "10.9.0.0/24", nodes: int = 3) -> FakeWorld:
    """Blocks of a /24 are /28: the node's own and fifteen for tasks."""
    world = FakeWorld()
    for n in range(1, nodes + 1):
        world.put(build.node(f"host-{n}", number=n))
    world.put(admit(world, spec.NetworkSpec(name="net", subnet=subnet), "net", 1.0))
    return world


def hold(world: FakeWorld, task_id: str, address: str, *, created: float, ended: float | None = None) -> pb.Task:
    task = build.task(task_id, SERVICE, created_at=created, state=pb.TASK_STATE_RUNNING)
    task.addresses.add(network_id="net", address=address)
    if ended is not None:
        task.status.state = pb.TASK_STATE_SHUTDOWN
        task.status.at = ended
        task.addresses_free = True
    return world.put(task)


def take(world: FakeWorld, count: int, node: str = "host-1") -> list[str]:
    """In one run, whose networks are stored."""
    run = Addresses(world)
    taken = []
    for _ in range(count):
        found = run.take(["net"], world.nodes[node])
        assert not isinstance(found, str)
        taken.append(found[0][1])
    for network in run.changed_networks():
        world.put(network)
    return taken


def blocks(world: FakeWorld, network_id: str = "net") -> list[tuple[str, str]]:
    return [(block.node_id, block.cidr) for block in world.networks[network_id].blocks]


def test_a_block_with_the_first_task_and_a_second_one_when_it_is_full() -> None:
    world = cluster()
    assert take(world, 16) == [*(f"10.9.0.{n}" for n in range(65, 80)), "10.9.0.81"]
    assert blocks(world) == [("host-1", "10.9.0.64/28"), ("host-1", "10.9.0.80/28")]


def test_the_next_address_follows_the_latest_hand_out_and_wraps() -> None:
    world = cluster()
    take(world, 1)
    hold(world, "a", "10.9.0.78", created=5.0)
    hold(world, "b", "10.9.0.66", created=4.0)
    assert take(world, 4) == ["10.9.0.79", "10.9.0.65", "10.9.0.67", "10.9.0.68"]


def test_free_ones_that_are_remembered_come_last_and_the_oldest_first() -> None:
    world = cluster()
    take(world, 1)
    for n in range(65, 80):
        hold(world, f"t{n}", f"10.9.0.{n}", created=float(n), ended=None if n % 5 else 500.0 - n)
    hold(world, "t79", "10.9.0.79", created=79.0, ended=1.0)
    assert take(world, 5) == ["10.9.0.79", "10.9.0.75", "10.9.0.70", "10.9.0.65", "10.9.0.81"]


def test_an_address_is_held_until_it_is_said_to_be_free() -> None:
    world = cluster()
    take(world, 1)
    task = hold(world, "a", "10.9.0.65", created=1.0)
    task = pb.Task.FromString(task.SerializeToString())
    task.status.state = pb.TASK_STATE_FAILED
    world.put(task)
    assert "10.9.0.65" not in take(world, 20)


def test_all_or_none_of_several_networks() -> None:
    world = cluster(nodes=1)
    world.put(admit(world, spec.NetworkSpec(name="tiny", subnet="10.8.0.0/26"), "tiny", 2.0))
    run = Addresses(world)
    node = world.nodes["host-1"]
    for _ in range(36):
        assert isinstance(run.take(["tiny"], node), list)
    before = run.take(["net"], node)
    assert run.take(["net", "tiny"], node) == "tiny"
    assert run.take(["net", "nowhere"], node) == "nowhere"
    after = run.take(["net"], node)
    assert (before, after) == ([("net", "10.9.0.65")], [("net", "10.9.0.66")]), "what failed has taken nothing"


def test_a_block_that_nothing_was_taken_from_is_not_stored() -> None:
    world = cluster(nodes=1)
    run = Addresses(world)
    assert run.take(["net", "nowhere"], world.nodes["host-1"]) == "nowhere"
    assert run.changed_networks() == []


def test_blocks_follow_a_node_that_moves() -> None:
    world = cluster(nodes=1)
    take(world, 1)
    node = pb.Node.FromString(world.nodes["host-1"].SerializeToString())
    node.address = "10.90.0.99"
    world.put(node)
    world.apply(schedule(world, NOW))
    assert [b.node_address for b in world.networks["net"].blocks] == ["10.90.0.99"]
    assert not schedule(world, NOW)


def test_blocks_of_a_removed_node_are_taken_back_when_its_addresses_are_free() -> None:
    world = cluster()
    take(world, 1, "host-1")
    take(world, 1, "host-2")
    hold(world, "a", "10.9.0.65", created=1.0)
    world.delete(world.nodes["host-1"])
    assert not schedule(world, NOW)
    hold(world, "a", "10.9.0.65", created=1.0, ended=9.0)
    world.apply(schedule(world, NOW))
    assert blocks(world) == [("host-2", "10.9.0.80/28")]
    assert take(world, 1, "host-3") == ["10.9.0.97"], "the next block is the one after the last"


@pytest.mark.parametrize("prefix", [16, 20, 22, 26])
def test_capacity(prefix: int) -> None:
    world = cluster(f"10.16.0.0/{prefix}", nodes=1)
    size = 2 ** (32 - max(24, prefix + 4))
    count = 3 * 2 ** (32 - prefix) // 4 // size
    run = Addresses(world)
    node = world.nodes["host-1"]
    taken = 0
    while isinstance(run.take(["net"], node), list):
        taken += 1
    assert taken == count * (size - 1)


def check_addresses(world: FakeWorld) -> None:
    """What must hold of every stored world."""
    for network in world.networks.values():
        subnet, vips = IPv4Network(network.spec.subnet), IPv4Network(network.vip_range)
        ranges = [IPv4Network(block.cidr) for block in network.blocks]
        own = {str(each.network_address) for each in ranges}
        for position, each in enumerate(ranges):
            assert each.subnet_of(subnet)
            assert not each.overlaps(vips)
            assert not any(each.overlaps(other) for other in ranges[:position])
        taken = [
            (held.address, task.node_id)
            for task in world.tasks.values()
            if not task.addresses_free
            for held in task.addresses
            if held.network_id == network.id
        ]
        assert len({address for address, _ in taken}) == len(taken), "an address is held by one task"
        for address, node_id in taken:
            assert address not in own, "a node's own address is no task's"
            assert any(
                IPv4Address(address) in each and block.node_id == node_id
                for each, block in zip(ranges, network.blocks, strict=True)
            ), "of a block of its node"


actions = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(1, 12)),
        st.tuples(st.just("die"), st.integers(0, 40)),
        st.tuples(st.just("free"), st.integers(0, 40)),
        st.tuples(st.just("prune"), st.integers(0, 40)),
        st.tuples(st.just("leave"), st.integers(1, 3)),
        st.tuples(st.just("join"), st.integers(1, 3)),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(actions, st.integers(0, 2))
def test_no_address_is_given_twice_and_no_blocks_overlap(steps: list[tuple[str, int]], done: int) -> None:
    """Tasks start, die, are freed and forgotten, nodes leave and join again; plans are carried out in part."""
    world = cluster("10.9.0.0/26")
    world.put(default_network(world, "default", 2.0))
    task_spec = build.task_spec()
    task_spec.networks.add(network_id="net")
    service = world.put(build.service(build.service_spec(task=task_spec)))
    service = pb.Service.FromString(service.SerializeToString())
    service.vips.add(network_id="net", address="10.9.0.1")
    world.put(service)
    made, now = 0, NOW
    for kind, value in steps:
        now += 1
        tasks = list(world.tasks.values())
        picked = pb.Task.FromString(tasks[value % len(tasks)].SerializeToString()) if tasks else None
        if kind == "start":
            for _ in range(value):
                made += 1
                world.put(build.task(f"t{made}", service, slot=made, created_at=now))
            world.apply(schedule(world, now), steps=done or None)
        elif kind == "leave":
            if f"host-{value}" in world.nodes:
                world.delete(world.nodes[f"host-{value}"])
        elif kind == "join":
            world.put(build.node(f"host-{value}", number=value))
        elif picked is not None and kind == "die":
            picked.status.state, picked.status.at = pb.TASK_STATE_FAILED, now
            world.put(picked)
        elif picked is not None and kind == "free" and picked.status.state == pb.TASK_STATE_FAILED:
            picked.addresses_free = True
            world.put(picked)
        elif picked is not None and kind == "prune" and picked.addresses_free:
            world.delete(picked)
        check_addresses(world)
    world.apply(schedule(world, now + 1))
    check_addresses(world)
