"""A node leaves by its own wish: its tasks move elsewhere, its part in etcd ends, then it is no node any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api import admission_nodes, refs
from pyswarm_manager.api.admissions import Admissions, Decision
from pyswarm_manager.clock import Clock
from pyswarm_manager.plan import Put, World
from pyswarm_manager.tasks import is_terminal


class Members(Protocol):
    async def has(self, node_id: str) -> bool:
        """Whether its etcd is a member."""
        ...


class Departures:
    def __init__(
        self,
        world: World,
        admissions: Admissions,
        may_become: Callable[[str, spec.NodeRole.ValueType], Awaitable[None]],
        keeper: Members | None,
        clock: Clock,
    ) -> None:
        """`may_become(node id, role)` raises PreconditionFailed where a change of role would harm the cluster."""
        self._world = world
        self._admissions = admissions
        self._may_become = may_become
        self._keeper = keeper
        self._clock = clock

    async def leave(self, node_id: str, *, force: bool, at_once: bool) -> str:
        """What it waits for, one clause; "" = the node is gone. To be called again until it is.

        PreconditionFailed: it is the last manager; or, without `force`, etcd would lose its majority. `at_once`: its
        tasks are not waited for."""
        await self._admissions.fresh()
        if node_id not in self._world.nodes:
            return ""
        if not force:
            await self._may_become(node_id, spec.NODE_ROLE_WORKER)
        await self._admissions.admit(lambda world: _depart(world, node_id))
        if self._keeper is not None and await self._keeper.has(node_id):
            return "etcd has not let its member go yet"
        tasks = [] if at_once else [t for t in self._world.tasks_of_node(node_id) if not is_terminal(t)]
        if tasks:
            return f"{len(tasks)} of its tasks have not moved elsewhere yet"
        await self._admissions.admit(lambda world: self._remove(world, node_id))
        return ""

    def _remove(self, world: World, node_id: str) -> Decision[None]:
        if node_id not in world.nodes:
            return [], None
        return admission_nodes.remove_node(world, world.nodes[node_id], force=True, now=self._clock.now()), None


def _depart(world: World, node_id: str) -> Decision[None]:
    """It takes no tasks any more, and manages nothing."""
    if node_id not in world.nodes:
        return [], None
    node = refs.node(world, node_id)
    wanted = spec.NodeSpec()
    wanted.CopyFrom(node.spec)
    wanted.role, wanted.availability = spec.NODE_ROLE_WORKER, spec.NODE_AVAILABILITY_DRAIN
    return ([Put(admission_nodes.update_node(world, node, wanted))] if wanted != node.spec else []), None
