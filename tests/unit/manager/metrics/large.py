"""A cluster of 1,000 services: three tasks each, five tasks of history each, 100 nodes."""

from __future__ import annotations

from tests.unit.manager.metrics.build import NOW, World, node, service, task

from pyswarm_core.v1 import objects_pb2 as pb

SERVICES, REPLICAS, HISTORY, NODES = 1000, 3, 5, 100


def large_world(services: int = SERVICES) -> World:
    world = World()
    for number in range(NODES):
        host = node(f"host-{number}")
        host.number = number + 1
        world.put(host)
    failed = pb.TaskStatus(state=pb.TASK_STATE_FAILED)
    for number in range(services):
        name = f"service-{number}"
        one = service(name, REPLICAS)
        one.spec.labels["prometheus.port"] = "9000"
        world.put(one)
        ended = pb.Rollout(
            id=f"{name}-rollout", service_id=one.id, state=pb.ROLLOUT_STATE_COMPLETED, started_at=NOW - 9
        )
        world.put(ended)
        for slot in range(1, REPLICAS + 1):
            world.put(task(name, slot, node=f"host-{(number + slot) % NODES}"))
        for past in range(HISTORY):
            world.put(task(name, 1, id=f"{name}-past-{past}", status=failed))
    return world
