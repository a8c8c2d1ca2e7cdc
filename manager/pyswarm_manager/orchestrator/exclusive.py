"""One task of a slot at a time, whatever the network does: when may the next one start?

When the one before has ended: by its agent's word, which for such a task comes after the container is gone; or, on a
node that is not heard of, when the node's permit is over, because its agent and fuses have ended it by then, or never
let it start. That is stored (the task is an orphan) before the node may have another permit, so what the
next one waits for is always the stored state of the one before. docs/adr/0014.
"""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator import changes
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import may_be_exclusive

WHY = "its node was not heard of for so long that it has ended this task by itself"


def given_up(world: World, service_id: str, now: float) -> list[pb.Task]:
    """Tasks, as they are to be put, that are certain to be over though nobody says so."""
    return [
        changes.orphaned(task, now, WHY)
        for task in sorted(world.tasks_of_service(service_id), key=lambda task: task.id)
        if may_be_exclusive(task) and _is_over(world.nodes.get(task.node_id))
    ]


def _is_over(node: pb.Node | None) -> bool:
    return node is not None and node.state == pb.NODE_STATE_DOWN and node.permit_over


def excludes(task: pb.Task, successor: spec.TaskSpec) -> bool:
    return task.spec.exclusive or successor.exclusive
