"""What Prometheus' HTTP service discovery gets: /sd/nodes (agents and managers) and /sd/tasks. Pure.

A group is one target: {"targets": ["HOST:PORT"], "labels": {…}}. Labels that begin with `__meta_pyswarm_` are for
relabelling and go away with it; `__metrics_path__` is what Prometheus asks for. Named as its Docker Swarm discovery
names them, where there is such a thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.metrics_cluster import Snapshot
from pyswarm_manager.tasks import display_name

PORT_LABEL, PATH_LABEL = "prometheus.port", "prometheus.path"
AGENT_PORT, MANAGER_PORT = 9378, 9377
_META = "__meta_pyswarm_"
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True)
class Group:
    target: str  # HOST:PORT
    labels: Mapping[str, str]

    def __str__(self) -> str:
        return json.dumps({"targets": [self.target], "labels": self.labels}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A service that asks to be scraped in a way that cannot be."""

    service: str
    reason: str


def document(groups: Iterable[Group | None]) -> Iterator[str]:
    """The JSON array, in pieces."""
    before = "["
    for group in groups:
        if group is None:
            yield ""
            continue
        yield f"{before}{group}"
        before = ",\n"
    yield "[]\n" if before == "[" else "]\n"


def nodes(world: Snapshot, managers: Iterable[pb.Leader]) -> Iterator[Group]:
    """`managers`: those that live. A node that is down, or whose metrics are closed to other hosts, is there all the
    same: that it cannot be scraped is to be seen."""
    alive = {manager.manager_id: manager for manager in managers}
    for node in sorted(world.nodes.values(), key=lambda n: (n.number, n.id)):
        told = node.description.metrics_address
        yield _node_group("agent", told or f"{node.address}:{AGENT_PORT}", bool(told), node)
        if node.spec.role == spec.NODE_ROLE_MANAGER or node.id in alive:
            manager = alive.pop(node.id, None)
            told = manager.metrics_address if manager is not None else ""
            # Of one that is away nobody knows where it would be, if not at the usual place.
            target = told or f"{node.address}:{MANAGER_PORT}"
            yield _node_group("manager", target, bool(told) or manager is None, node)
    for manager_id, manager in sorted(alive.items()):  # a manager whose host has no agent yet
        host = manager.address.rpartition(":")[0]
        node = pb.Node(id=manager_id, address=host, spec=spec.NodeSpec(role=spec.NODE_ROLE_MANAGER))
        target = manager.metrics_address or f"{host}:{MANAGER_PORT}"
        yield _node_group("manager", target, bool(manager.metrics_address), node)


def tasks(world: Snapshot) -> Iterator[Group | Refusal | None]:
    """None to pause at. Running tasks of services with the label `prometheus.port`, by their addresses in the overlay,
    which every host of the cluster reaches. The label may also be the container's (what Compose calls `labels`)."""
    of_service: dict[str, list[pb.Task]] = {}
    for task in world.tasks.values():
        if task.status.state == pb.TASK_STATE_RUNNING and task.addresses:
            of_service.setdefault(task.service_id, []).append(task)
        yield None
    for service in sorted(world.services.values(), key=lambda service: (service.spec.name, service.id)):
        for task in sorted(of_service.get(service.id, ()), key=lambda task: (task.slot, task.id)):
            yield from _task(world, service, task)


def _task(world: Snapshot, service: pb.Service, task: pb.Task) -> Iterator[Group | Refusal]:
    wanted: Mapping[str, str] = {**task.spec.container.labels, **service.spec.labels}
    port = wanted.get(PORT_LABEL)
    node = world.nodes.get(task.node_id)
    if port is None or node is None or node.state == pb.NODE_STATE_DOWN:
        return
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", port) or not 0 < int(port) < 65536:
        yield Refusal(service.spec.name, f"its label {PORT_LABEL} is {port!r}: a port is a number from 1 to 65535")
        return
    path = wanted.get(PATH_LABEL, "") or "/metrics"
    network = world.networks.get(task.addresses[0].network_id)
    values = {
        "__metrics_path__": path if path.startswith("/") else f"/{path}",
        _META + "service_id": service.id,
        _META + "service_name": service.spec.name,
        _META + "service_mode": _name(spec.ServiceMode, service.spec.mode, "SERVICE_MODE_"),
        _META + "task_id": task.id,
        _META + "task_name": display_name(task),
        _META + "task_slot": str(task.slot),
        _META + "task_health": _name(pb.Health, task.status.health, "HEALTH_"),
        _META + "container_image": task.spec.container.image,
        _META + "network_name": network.spec.name if network is not None else "",
        **_of_node(node),
        **_given("service_label_", service.spec.labels),
        **_given("container_label_", task.spec.container.labels),
    }
    yield Group(f"{task.addresses[0].address}:{int(port)}", values)


def _node_group(component: str, target: str, is_open: bool, node: pb.Node) -> Group:
    values = {
        _META + "component": component,
        _META + "metrics_open": str(is_open).lower(),
        **_of_node(node),
        **_given("node_label_", node.spec.labels),
    }
    return Group(target, values)


def _of_node(node: pb.Node) -> dict[str, str]:
    return {
        _META + "node_id": node.id,
        _META + "node_hostname": node.description.hostname,
        _META + "node_address": node.address,
        _META + "node_role": _name(spec.NodeRole, node.spec.role, "NODE_ROLE_"),
        _META + "node_state": _name(pb.NodeState, node.state, "NODE_STATE_"),
        _META + "node_availability": _name(spec.NodeAvailability, node.spec.availability, "NODE_AVAILABILITY_"),
    }


def _given(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    """Users' labels: whatever no name of a label may have becomes "_"."""
    return {_META + prefix + _NOT_IN_NAMES.sub("_", key): values[key] for key in sorted(values)}


def _name(enum: Any, value: int, prefix: str) -> str:
    return str(enum.Name(value)).removeprefix(prefix).lower()
