"""What one agent is to have: its tasks, the networks, and the credentials for its images. Pure.

A session's set remembers what was sent, and yields what differs now; so a slow agent gets one update for many changes.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal


class AssignmentSet:
    """Of one session. `update` is told nothing: it looks at the world, in time proportional to the node's tasks."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._seq = 0
        self._tasks: dict[str, Hashable] = {}
        self._networks: dict[str, int] = {}
        self._auths: dict[str, int] = {}

    def update(self, world: World, attached: Collection[str]) -> wire.AssignmentUpdate | None:
        """The next message; None when the agent has everything. The first one is complete. `attached`: the networks
        that services are attached to, anywhere."""
        tasks = {t.id: t for t in world.tasks_of_node(self._node_id) if t.status.state >= pb.TASK_STATE_ASSIGNED}
        networks = {n.id: n for n in _networks(world, attached, tasks.values())}
        auths = {
            t.service_id: world.auths[t.service_id]
            for t in tasks.values()
            if t.service_id in world.auths and not is_terminal(t)
        }
        orders = {task_id: _orders(task) for task_id, task in tasks.items()}
        update = wire.AssignmentUpdate(
            complete=self._seq == 0,
            tasks=[t for t in tasks.values() if self._tasks.get(t.id) != orders[t.id]],
            removed_tasks=self._tasks.keys() - tasks.keys(),
            networks=[n for n in networks.values() if self._networks.get(n.id) != n.version],
            removed_networks=self._networks.keys() - networks.keys(),
            auths=[a for a in auths.values() if self._auths.get(a.id) != a.version],
        )
        self._tasks = orders
        self._networks = {n.id: n.version for n in networks.values()}
        self._auths = {a.id: a.version for a in auths.values()}
        if not update.ListFields():  # seq is not set yet
            return None
        self._seq += 1
        update.seq = self._seq
        return update

    def mention(self, task_id: str, world: World) -> None:
        """The agent speaks of this task. If it is not one of its own here, the next update says so, and it frees it."""
        task = world.tasks.get(task_id)
        if task_id not in self._tasks and (task is None or task.node_id != self._node_id):
            self._tasks[task_id] = None


def _orders(task: pb.Task) -> Hashable:
    """What of a task the agent acts on and that may change. Its status is not in it: that comes from the agent."""
    return (
        task.desired_state,
        task.leaving,
        task.leaving_at,
        task.released,
        task.released_at,
        task.start_after,
        task.addresses_free,
        tuple((a.network_id, a.address) for a in task.addresses),
    )


def _networks(world: World, attached: Collection[str], tasks: Iterable[pb.Task]) -> Iterable[pb.Network]:
    """Those of all services and of the node's tasks, and others that still have a block somewhere: any host may be the
    entry to a VIP or a published port of a service that runs elsewhere, and its packets go by the service's network."""
    of_tasks = {a.network_id for task in tasks for a in task.addresses}
    return (n for n in world.networks.values() if n.blocks or n.id in attached or n.id in of_tasks)
