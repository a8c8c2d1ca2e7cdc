#!/usr/bin/env python3
"""Placements per second of CPU time of the scheduler, against two floors in interleaved rounds (medians):

heap   a plain heap of hosts: one heapreplace for each placement, nothing else
copy   the same, and a copy of the task's message with node and address set: the least a plan has to write
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heapreplace

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import admit
from pyswarm_manager.scheduler.assign import plan

NOW = 1000.0


class World:
    """A plan.World over dictionaries, with the index by service that the real one has."""

    def __init__(self) -> None:
        self.revision = 1
        self.services: dict[str, pb.Service] = {}
        self.tasks: dict[str, pb.Task] = {}
        self.nodes: dict[str, pb.Node] = {}
        self.networks: dict[str, pb.Network] = {}
        self.rollouts: Mapping[str, pb.Rollout] = {}
        self.auths: Mapping[str, pb.RegistryAuth] = {}
        self._of_service: dict[str, list[pb.Task]] = {}

    def add(self, task: pb.Task) -> None:
        self.tasks[task.id] = task
        self._of_service.setdefault(task.service_id, []).append(task)

    def tasks_of_service(self, service_id: str) -> Sequence[pb.Task]:
        return self._of_service.get(service_id, ())

    def tasks_of_node(self, node_id: str) -> Sequence[pb.Task]:
        return [task for task in self.tasks.values() if task.node_id == node_id]

    def rollouts_of_service(self, service_id: str) -> Sequence[pb.Rollout]:
        return [rollout for rollout in self.rollouts.values() if rollout.service_id == service_id]


def make(nodes: int, services: int, tasks: int) -> World:
    """Services with constraints, reservations and a probe, as real ones have them."""
    world = World()
    world.networks["net"] = admit(world, spec.NetworkSpec(name="net", subnet="20.0.0.0/8"), "net", 1.0)
    for n in range(1, nodes + 1):
        world.nodes[f"node-{n:05}"] = pb.Node(
            id=f"node-{n:05}",
            number=n,
            state=pb.NODE_STATE_READY,
            address=f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
            spec=spec.NodeSpec(labels={"zone": "abc"[n % 3], "disk": "ssd"}),
            description=pb.NodeDescription(
                hostname=f"host-{n}",
                platform=spec.Platform(os="linux", architecture="amd64"),
                nano_cpus=64 * 10**9,
                memory=256 << 30,
            ),
        )
    for s in range(services):
        task_spec = spec.TaskSpec(
            container=spec.ContainerSpec(
                image="registry.example:5000/team/web:v1",
                digest="sha256:" + "ab" * 32,
                platforms=[spec.Platform(os="linux", architecture="amd64")],
                env=[f"KEY{n}=value" for n in range(10)],
                probe=spec.Probe(http=spec.HttpCheck(port=80, path="/"), interval=1, timeout=1, retries=3),
            ),
            resources=spec.Resources(reserve_memory=64 << 20, reserve_nano_cpus=10**7),
            placement=spec.Placement(constraints=["node.labels.disk==ssd"]),
            networks=[spec.NetworkAttachment(network_id="net")],
        )
        service = pb.Service(
            id=f"service-{s}",
            spec=spec.ServiceSpec(name=f"web-{s}", task=task_spec),
            vips=[pb.Vip(network_id="net", address=f"20.0.{s >> 8}.{s & 255}")],
            spec_version=1,
        )
        world.services[service.id] = service
        for n in range(tasks // services):
            world.add(
                pb.Task(
                    id=f"task-{s}-{n}",
                    service_id=service.id,
                    service_name=service.spec.name,
                    slot=n + 1,
                    spec=task_spec,
                    spec_version=1,
                    created_at=NOW,
                    desired_state=pb.TASK_STATE_RUNNING,
                )
            )
    return world


def heap_floor(world: World) -> None:
    heap = [(0, 0, index) for index in range(len(world.nodes))]
    heapify(heap)
    for _ in world.tasks:
        count, load, index = heap[0]
        heapreplace(heap, (count + 1, load + 1, index))


def copy_floor(world: World) -> None:
    heap = [(0, 0, index) for index in range(len(world.nodes))]
    heapify(heap)
    ids = list(world.nodes)
    written = []
    for task in world.tasks.values():
        count, load, index = heap[0]
        heapreplace(heap, (count + 1, load + 1, index))
        copy = pb.Task()
        copy.CopyFrom(task)
        copy.node_id = ids[index]
        copy.addresses.add(network_id="net", address="20.64.0.1")
        copy.status.state = pb.TASK_STATE_ASSIGNED
        written.append(copy)


def schedule(world: World) -> None:
    found = plan(world, NOW)
    assigned = sum(isinstance(write.message, pb.Task) for step in found.steps for write in step)
    assert assigned == len(world.tasks), f"{assigned} of {len(world.tasks)} tasks placed"


def seconds(work: Callable[[World], None], world: World) -> float:
    gc.collect()
    start = time.process_time()
    work(world)
    return time.process_time() - start


def measure(title: str, world: World, rounds: int) -> None:
    works = {"heap": heap_floor, "copy": copy_floor, "plan": schedule}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work, world))
    count = len(world.tasks)
    rate = {name: count / statistics.median(times) for name, times in taken.items()}
    print(
        f"{title:42} {rate['plan']:>8,.0f}/s"
        f"   heap floor {rate['heap']:>10,.0f}/s (ratio {rate['plan'] / rate['heap']:.3f})"
        f"   copy floor {rate['copy']:>9,.0f}/s (ratio {rate['plan'] / rate['copy']:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("placements per second of CPU time; aim 67,000 on 10,000 nodes")
    for nodes, services, tasks in ((10_000, 1, 50_000), (10_000, 5, 50_000), (1_000, 100, 10_000), (3, 10, 300)):
        title = f"{nodes:,} nodes, {services} service{'s' if services > 1 else ''}, {tasks:,} tasks"
        measure(title, make(nodes, services, tasks), rounds)


if __name__ == "__main__":
    main()
