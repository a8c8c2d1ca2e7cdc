"""What is right or wrong with one task where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_endpoint, is_terminal

Matches = Callable[[Sequence[str], pb.Node], bool]  # do a node's labels and name meet these constraints?


def is_gone(world: World, task: pb.Task) -> bool:
    """Its node was removed from the cluster."""
    return bool(task.node_id) and task.node_id not in world.nodes


def is_lost(world: World, task: pb.Task) -> bool:
    """Its node is down: nobody knows what it does."""
    node = world.nodes.get(task.node_id)
    return node is not None and node.state == pb.NODE_STATE_DOWN


def is_unhealthy(task: pb.Task) -> bool:
    """It served and its probe fails now. One that never passed its probe is ended by its agent, which tells more."""
    return task.status.state == pb.TASK_STATE_RUNNING and task.status.health == pb.HEALTH_UNHEALTHY


def is_misplaced(world: World, task: pb.Task, matches: Matches) -> bool:
    """Its node is drained, or no longer meets the constraints of its spec."""
    node = world.nodes.get(task.node_id)
    if node is None:
        return False
    return node.spec.availability == spec.NODE_AVAILABILITY_DRAIN or not matches(task.spec.placement.constraints, node)


def serves(world: World, task: pb.Task) -> bool:
    return is_endpoint(task, world.nodes.get(task.node_id))


def is_balanced(world: World, task: pb.Task) -> bool:
    """It serves, and every live node had confirmed it."""
    return task.balanced_at > 0 and serves(world, task)


def is_still_there(world: World, task: pb.Task) -> bool:
    """Not terminal, and on a node (or on its way to one) that is alive."""
    return not (is_terminal(task) or is_gone(world, task) or is_lost(world, task))


def best(world: World, tasks: Sequence[pb.Task]) -> pb.Task | None:
    """The one that is most worth keeping; None of none."""
    if len(tasks) < 2:  # nearly always
        return tasks[0] if tasks else None
    return max(tasks, key=lambda task: _worth(world, task))


def _worth(world: World, task: pb.Task) -> tuple[bool, bool, int, float, str]:
    return is_balanced(world, task), serves(world, task), task.status.state, -task.created_at, task.id
