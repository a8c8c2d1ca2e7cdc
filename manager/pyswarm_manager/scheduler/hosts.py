"""What each node has left: a scratch copy that one planning run counts in."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal, is_wanted

PortKey = tuple[int, int]  # (protocol, published)


def port_keys(ports: Iterable[spec.Port]) -> tuple[PortKey, ...]:
    return tuple((port.protocol, port.published) for port in ports)


class Host:
    """One registered node. Resources and ports count every task on it that is not terminal; `load` only those that are
    meant to stay, so that what is on its way out does not push new tasks elsewhere."""

    __slots__ = ("cpus_free", "id", "load", "memory_free", "name", "node", "ports")

    def __init__(self, node: pb.Node) -> None:
        self.node = node
        self.id: str = node.id
        self.name: str = node.description.hostname or node.id
        self.cpus_free: int = node.description.nano_cpus
        self.memory_free: int = node.description.memory
        self.ports: set[PortKey] = set()
        self.load = 0

    def add(self, task: pb.Task) -> None:
        resources = task.spec.resources
        self.cpus_free -= resources.reserve_nano_cpus
        self.memory_free -= resources.reserve_memory
        self.ports.update(port_keys(task.spec.host_ports))
        if is_wanted(task):
            self.load += 1


def hosts_of(world: World) -> dict[str, Host]:
    """All registered nodes (those with a number), by id, in the order of their ids."""
    hosts = {node_id: Host(node) for node_id, node in sorted(world.nodes.items()) if node.number}
    for task in world.tasks.values():
        host = hosts.get(task.node_id)
        # A preset node_id of a task that waits takes no room yet.
        if host is not None and task.status.state >= pb.TASK_STATE_ASSIGNED and not is_terminal(task):
            host.add(task)
    return hosts
