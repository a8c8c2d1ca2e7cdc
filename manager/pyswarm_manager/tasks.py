"""Questions about one task, asked by every planner."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb


def is_terminal(task: pb.Task) -> bool:
    """It will never run (again)."""
    return task.status.state >= pb.TASK_STATE_COMPLETE


def is_wanted(task: pb.Task) -> bool:
    """It fills its slot: it is meant to run, or is being prepared for it."""
    return task.desired_state <= pb.TASK_STATE_RUNNING


def is_healthy(task: pb.Task) -> bool:
    return task.status.state == pb.TASK_STATE_RUNNING and task.status.health in (
        pb.HEALTH_NONE,
        pb.HEALTH_HEALTHY,
    )


def may_be_exclusive(task: pb.Task) -> bool:
    """It runs, or may come to run, somewhere, and nothing else may in its slot."""
    return task.spec.exclusive and not is_terminal(task) and task.status.state >= pb.TASK_STATE_ASSIGNED


def is_endpoint(task: pb.Task, node: pb.Node | None) -> bool:
    """It may take new connections."""
    return (
        is_healthy(task)
        and task.desired_state == pb.TASK_STATE_RUNNING
        and not task.leaving
        and node is not None
        and node.state != pb.NODE_STATE_DOWN
    )


def endpoint_version(task: pb.Task, node: pb.Node) -> int:
    """The revision from which on what is derived has it as an endpoint, at the latest: its node may have come back up
    after the task itself was last written."""
    return max(task.version, node.version)


def display_name(task: pb.Task) -> str:
    """web.1; for a global service web.<node id>."""
    return f"{task.service_name}.{task.slot or task.node_id}"
