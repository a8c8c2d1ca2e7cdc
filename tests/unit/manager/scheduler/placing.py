"""A few nodes, services on them, and what the scheduler made of it."""

from __future__ import annotations

from collections import Counter

from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import default_network
from pyswarm_manager.allocator.service import plan as allocate
from pyswarm_manager.scheduler.assign import plan

GIB = 1 << 30
NOW = 1000.0


def cluster(*nodes: pb.Node) -> FakeWorld:
    world = FakeWorld()
    for node in nodes:
        world.put(node)
    world.put(default_network(world, "default", 1.0))
    return world


def three(**changes: object) -> FakeWorld:
    return cluster(*(build.node(f"host-{n}", number=n, **changes) for n in (1, 2, 3)))  # type: ignore[arg-type]


def deploy(world: FakeWorld, wanted: spec.ServiceSpec, *, service_id: str = "", first_slot: int = 1) -> pb.Service:
    """A service with its VIPs and a NEW task for each slot."""
    service = build.service(wanted, service_id=service_id or wanted.name)
    del service.vips[:]
    world.put(service)
    world.apply(allocate(world, service.id, NOW))
    service = world.services[service.id]
    if wanted.mode == spec.SERVICE_MODE_REPLICATED:
        for slot in range(first_slot, first_slot + wanted.replicas):
            world.put(build.task(f"{service.id}-{slot}", service, slot=slot, created_at=NOW + slot / 1000))
    return service


def schedule(world: FakeWorld, now: float = NOW) -> None:
    world.apply(plan(world, now))


def per_node(world: FakeWorld, service_id: str = "web") -> dict[str, int]:
    return dict(
        Counter(t.node_id for t in world.tasks_of_service(service_id) if t.status.state >= pb.TASK_STATE_ASSIGNED)
    )


def messages(world: FakeWorld) -> set[str]:
    return {t.status.message for t in world.tasks.values() if t.status.state == pb.TASK_STATE_PENDING}
