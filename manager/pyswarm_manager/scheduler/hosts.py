"""What each node has left: a scratch copy that one planning run counts in."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal, is_wanted

PortKey = tuple[int, int]  # (protocol, published)


class Demand:
    """What a task takes of its host: read once from the spec that many tasks share."""

    __slots__ = ("cpus", "memory", "ports")

    def __init__(self, task: spec.TaskSpec) -> None:
        self.cpus: int = task.resources.reserve_nano_cpus
        self.memory: int = task.resources.reserve_memory
        self.ports: tuple[PortKey, ...] = tuple((port.protocol, port.published) for port in task.host_ports)


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

    def add(self, demand: Demand) -> None:
        """One more task that stays."""
        self.load += 1
        self.cpus_free -= demand.cpus
        self.memory_free -= demand.memory
        if demand.ports:
            self.ports.update(demand.ports)


def hosts_of(world: World) -> dict[str, Host]:
    """All registered nodes (those with a number), by id, in the order of their ids."""
    hosts = {node_id: Host(node) for node_id, node in sorted(world.nodes.items()) if node.number}
    for task in world.tasks.values():
        host = hosts.get(task.node_id)
        # A preset node_id of a task that waits takes no room yet.
        if host is not None and task.status.state >= pb.TASK_STATE_ASSIGNED and not is_terminal(task):
            host.add(Demand(task.spec))
            if not is_wanted(task):
                host.load -= 1
    return hosts
