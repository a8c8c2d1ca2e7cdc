from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import default_network
from pyswarm_manager.allocator.service import plan as allocate
from pyswarm_manager.scheduler.assign import plan
from pyswarm_manager.scheduler.constraints import matches
from pyswarm_manager.tasks import is_terminal

NOW = 1000.0
MIB = 1 << 20


@dataclass(frozen=True)
class Wanted:
    replicas: int
    memory: int
    cpus: int
    zone: str
    max_per_node: int
    host_port: int
    spread: bool


nodes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 8),  # CPUs
        st.integers(1, 8),  # GiB
        st.sampled_from([pb.NODE_STATE_READY, pb.NODE_STATE_READY, pb.NODE_STATE_READY, pb.NODE_STATE_DOWN]),
        st.sampled_from([spec.NODE_AVAILABILITY_ACTIVE, spec.NODE_AVAILABILITY_ACTIVE, spec.NODE_AVAILABILITY_DRAIN]),
    ),
    max_size=6,
)
wanted_services = st.lists(
    st.builds(
        Wanted,
        replicas=st.integers(0, 12),
        memory=st.sampled_from([0, 0, 512 * MIB, 2048 * MIB]),
        cpus=st.sampled_from([0, 0, 500_000_000, 2_000_000_000]),
        zone=st.sampled_from(["", "", "a", "z"]),
        max_per_node=st.sampled_from([0, 0, 1, 2]),
        host_port=st.sampled_from([0, 0, 0, 80]),
        spread=st.booleans(),
    ),
    max_size=4,
)


def make(machines: list[tuple[str, int, int, int, int]], services: list[Wanted]) -> FakeWorld:
    world = FakeWorld()
    for n, (zone, cpus, gib, state, availability) in enumerate(machines, start=1):
        world.put(
            build.node(
                f"n{n}",
                number=n,
                cpus=cpus,
                memory=gib << 30,
                labels={"zone": zone},
                state=state,  # type: ignore[arg-type]
                availability=availability,  # type: ignore[arg-type]
            )
        )
    world.put(default_network(world, "default", 1.0))
    for n, wanted in enumerate(services):
        add(world, f"s{n}", wanted)
    return world


def add(world: FakeWorld, name: str, wanted: Wanted) -> None:
    task = build.task_spec(constraints=(f"node.labels.zone=={wanted.zone}",) if wanted.zone else ())
    task.resources.reserve_memory = wanted.memory
    task.resources.reserve_nano_cpus = wanted.cpus
    task.placement.max_per_node = wanted.max_per_node
    if wanted.spread:
        task.placement.preferences.append("spread=node.labels.zone")
    if wanted.host_port:
        task.host_ports.add(target=80, published=wanted.host_port, mode=spec.PUBLISH_MODE_HOST)
    service = build.service(build.service_spec(name, replicas=wanted.replicas, task=task), service_id=name)
    del service.vips[:]
    world.put(service)
    world.apply(allocate(world, name, NOW))
    for slot in range(1, wanted.replicas + 1):
        world.put(build.task(f"{name}-{slot}", world.services[name], slot=slot, created_at=NOW + slot / 100))


def check_filters(world: FakeWorld) -> None:
    """No node has more than it can take, and nothing that it must not have."""
    for node in world.nodes.values():
        tasks = [t for t in world.tasks_of_node(node.id) if not is_terminal(t)]
        assert sum(t.spec.resources.reserve_memory for t in tasks) <= node.description.memory
        assert sum(t.spec.resources.reserve_nano_cpus for t in tasks) <= node.description.nano_cpus
        ports = [(p.protocol, p.published) for t in tasks for p in t.spec.host_ports]
        assert len(set(ports)) == len(ports)
        per_service = Counter(t.service_id for t in tasks)
        for task in tasks:
            assert node.state == pb.NODE_STATE_READY
            assert node.spec.availability == spec.NODE_AVAILABILITY_ACTIVE
            assert matches(task.spec.placement.constraints, node)
            most = task.spec.placement.max_per_node
            assert not most or per_service[task.service_id] <= most


@settings(max_examples=150, deadline=None)
@given(nodes, wanted_services)
def test_nothing_is_exceeded_and_everything_explains_itself(
    machines: list[tuple[str, int, int, int, int]], services: list[Wanted]
) -> None:
    world = make(machines, services)
    world.apply(plan(world, NOW))
    check_filters(world)
    for task in world.tasks.values():
        if task.status.state == pb.TASK_STATE_ASSIGNED:
            assert task.node_id
            assert len(task.addresses) == 1
        else:
            assert task.status.state == pb.TASK_STATE_PENDING
            assert task.status.message.startswith("no suitable node: ")
            assert not task.node_id
            _check_counts(task.status.message, len(machines))
    assert not plan(world, NOW + 1), "a second look finds nothing to do"


def _check_counts(message: str, nodes_there: int) -> None:
    """The clauses account for every node."""
    clauses = message.removeprefix("no suitable node: ")
    if not nodes_there:
        assert clauses == "no node has joined"
        return
    # A detail in brackets has a semicolon of its own.
    outside = "".join(part.split(")")[-1] for part in clauses.split("("))
    assert sum(int(clause.split()[0]) for clause in outside.split("; ")) == nodes_there
    assert f"of {nodes_there} node" in clauses


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_spread_is_within_one(hosts: int, replicas: list[int]) -> None:
    """For each service, and over all of them, however they come one after the other."""
    world = make([("a", 8, 8, pb.NODE_STATE_READY, 0)] * hosts, [])
    for n, count in enumerate(replicas):
        add(world, f"s{n}", Wanted(count, 0, 0, "", 0, 0, False))
        world.apply(plan(world, NOW))
        for some in ([f"s{n}"], [f"s{m}" for m in range(n + 1)]):
            per_node = Counter(dict.fromkeys(world.nodes, 0))
            per_node.update(t.node_id for t in world.tasks.values() if t.service_id in some)
            assert max(per_node.values()) - min(per_node.values()) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), st.integers(0, 30))
def test_spread_over_zones_is_within_one(zones: list[str], replicas: int) -> None:
    world = make([(zone, 8, 8, pb.NODE_STATE_READY, 0) for zone in zones], [Wanted(replicas, 0, 0, "", 0, 0, True)])
    world.apply(plan(world, NOW))
    per_zone = Counter(dict.fromkeys(zones, 0))
    per_node = Counter(dict.fromkeys(world.nodes, 0))
    for task in world.tasks.values():
        per_node[task.node_id] += 1
        per_zone[world.nodes[task.node_id].spec.labels["zone"]] += 1
    assert max(per_zone.values()) - min(per_zone.values()) <= 1
    for zone in zones:
        inside = [per_node[node.id] for node in world.nodes.values() if node.spec.labels["zone"] == zone]
        assert max(inside) - min(inside) <= 1


@settings(max_examples=60, deadline=None)
@given(nodes, wanted_services, st.integers(1, 3))
def test_the_same_world_gives_the_same_plan_whatever_the_order(
    machines: list[tuple[str, int, int, int, int]], services: list[Wanted], steps: int
) -> None:
    world = make(machines, services)
    again = FakeWorld()
    for kind in (world.tasks, world.services, world.networks, world.nodes):
        for message in reversed(list(kind.values())):
            again.put(message)  # type: ignore[type-var]
    first = {t.id: (t.node_id, t.addresses[0].address) for t in assigned(world, steps)}
    second = {t.id: (t.node_id, t.addresses[0].address) for t in assigned(again, steps)}
    assert first == second


def assigned(world: FakeWorld, steps: int) -> list[pb.Task]:
    world.apply(plan(world, NOW), steps=steps)
    return [t for t in world.tasks.values() if t.status.state == pb.TASK_STATE_ASSIGNED]
