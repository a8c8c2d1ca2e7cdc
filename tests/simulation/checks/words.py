"""The checks' own understanding of the words, so that a fault in the product's cannot blind them."""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_core.v1 import objects_pb2 as pb

LATE = 5.0  # seconds that a leader may be behind when it makes a task or places one


def is_over(task: pb.Task) -> bool:
    return task.status.state >= pb.TASK_STATE_COMPLETE


def is_wanted(task: pb.Task) -> bool:
    return task.desired_state in (pb.TASK_STATE_READY, pb.TASK_STATE_RUNNING)


def serves(task: pb.Task, nodes: Mapping[str, pb.Node]) -> bool:
    """It is an endpoint: runs, is healthy or has no probe, stays, and its node is not down."""
    node = nodes.get(task.node_id)
    return (
        task.status.state == pb.TASK_STATE_RUNNING
        and task.status.health in (pb.HEALTH_NONE, pb.HEALTH_HEALTHY)
        and task.desired_state == pb.TASK_STATE_RUNNING
        and not task.leaving
        and node is not None
        and node.state != pb.NODE_STATE_DOWN
    )


def is_live(node: pb.Node) -> bool:
    return node.state != pb.NODE_STATE_DOWN and node.serving


def places(task: pb.Task) -> set[tuple[str, str]]:
    """(network, address) that it holds."""
    return set() if task.addresses_free else {(a.network_id, a.address) for a in task.addresses}
