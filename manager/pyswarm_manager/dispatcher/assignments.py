"""What one agent is to have: its tasks, the networks, and the credentials for its images. Pure.

A session's set remembers what was sent and is told what may have changed; it yields what differs now. So a slow agent
gets one update for many changes, and a change costs what it touches, not what the node has.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal


class AssignmentSet:
    """Of one session: `touch…` as things change, `update` when the agent can take more."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._seq = 0
        self._tasks: dict[str, Hashable] = {}  # what was sent: id → orders
        self._networks: dict[str, int] = {}  # id → version
        self._auths: dict[str, int] = {}
        self._touched: dict[str, None] = {}  # in order
        self._networks_touched = True

    def touch(self, task_ids: Iterable[str]) -> None:
        self._touched.update(dict.fromkeys(task_ids))

    def touch_networks(self) -> None:
        """A network has changed, or what is attached to it."""
        self._networks_touched = True

    def mention(self, task_id: str, world: World) -> bool:
        """The agent speaks of this task. If it is none of its own here, the next update says so, and it frees it."""
        task = world.tasks.get(task_id)
        if task_id in self._tasks or (task is not None and task.node_id == self._node_id):
            return False
        self._tasks[task_id] = None
        self._touched[task_id] = None
        return True

    def update(self, world: World, attached: Collection[str]) -> wire.AssignmentUpdate | None:
        """The next message; None when the agent has everything. The first one is complete. `attached`: the networks
        that services are attached to, anywhere."""
        is_first = self._seq == 0
        touched = [t.id for t in world.tasks_of_node(self._node_id)] if is_first else list(self._touched)
        result = wire.AssignmentUpdate(complete=is_first)
        for task_id in touched:
            self._task(result, world, task_id)
        # An address may be in a network that was of no interest until now.
        if self._networks_touched or any(a.network_id not in self._networks for t in result.tasks for a in t.addresses):
            self._all_networks(result, world, attached)
        self._touched = {}
        if not is_first and not result.ListFields():
            return None
        self._seq += 1
        result.seq = self._seq
        return result

    def _task(self, result: wire.AssignmentUpdate, world: World, task_id: str) -> None:
        task = world.tasks.get(task_id)
        if task is None or task.node_id != self._node_id or task.status.state < pb.TASK_STATE_ASSIGNED:
            if task_id in self._tasks:
                del self._tasks[task_id]
                result.removed_tasks.append(task_id)
            return
        orders = _orders(task)
        if self._tasks.get(task_id) != orders:
            self._tasks[task_id] = orders
            result.tasks.append(task)
        auth = world.auths.get(task.service_id)
        if auth is not None and self._auths.get(auth.id) != auth.version and not is_terminal(task):
            self._auths[auth.id] = auth.version
            result.auths.append(auth)

    def _all_networks(self, result: wire.AssignmentUpdate, world: World, attached: Collection[str]) -> None:
        self._networks_touched = False
        of_tasks = {a.network_id for task in world.tasks_of_node(self._node_id) for a in task.addresses}
        # Those of all services and of the node's tasks, and others that still have a block somewhere: any host may be
        # the entry to a VIP or a published port of a service that runs elsewhere.
        networks = [n for n in world.networks.values() if n.blocks or n.id in attached or n.id in of_tasks]
        result.networks.extend(n for n in networks if self._networks.get(n.id) != n.version)
        versions = {n.id: n.version for n in networks}
        result.removed_networks.extend(sorted(self._networks.keys() - versions.keys()))
        self._networks = versions


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
