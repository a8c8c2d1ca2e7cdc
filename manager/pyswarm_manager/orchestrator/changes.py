"""Everything the orchestrator ever writes to a task. Each function returns a copy to put."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.fitness import is_gone
from pyswarm_manager.orchestrator.restart import Start
from pyswarm_manager.orchestrator.slots import Key
from pyswarm_manager.plan import World, changed


def new_task(
    task_id: str,
    service: pb.Service,
    key: Key,
    task_spec: spec.TaskSpec,
    start: Start,
    *,
    now: float,
    created_at: float,
    spec_version: int,
    rollout_id: str,
    predecessor_id: str,
    wait: bool,
) -> pb.Task:
    """`wait`: prepared only, until the slot's predecessor has ended (stop-first)."""
    slot, node_id = key
    later = start.at > now
    return pb.Task(
        id=task_id,
        created_at=created_at,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        ports=service.spec.ports,
        slot=slot,
        node_id=node_id,
        spec=task_spec,
        spec_version=spec_version,
        rollout_id=rollout_id,
        desired_state=pb.TASK_STATE_READY if wait or later else pb.TASK_STATE_RUNNING,
        status=pb.TaskStatus(state=pb.TASK_STATE_NEW, at=now),
        start_after=start.at if later else 0,
        restarts=start.restarts,
        quick_failures=start.quick_failures,
        window_at=start.window_at,
        window_restarts=start.window_restarts,
        predecessor_id=predecessor_id,
    )


def dismiss(world: World, task: pb.Task, now: float, *, forget: bool = False) -> pb.Task:
    """A task that is alive is told to stop: by the ordered drain where it has a node that can do it."""
    out = changed(task)
    out.desired_state = pb.TASK_STATE_REMOVE if forget else pb.TASK_STATE_SHUTDOWN
    if task.status.state < pb.TASK_STATE_ASSIGNED:
        # No agent has it: until it is assigned, its status is the leader's to write.
        out.status.state, out.status.at = pb.TASK_STATE_SHUTDOWN, now
        out.status.message = "not needed any more"
        out.addresses_free = True
        return out
    out.leaving = True
    out.leaving_at = out.leaving_at or now
    return orphaned(out, now) if is_gone(world, task) else out


def orphaned(task: pb.Task, now: float, why: str = "its node was removed from the cluster") -> pb.Task:
    """Nobody will ever report on it again, or has to."""
    out = changed(task)
    if out.desired_state < pb.TASK_STATE_SHUTDOWN:
        out.desired_state = pb.TASK_STATE_SHUTDOWN
    out.leaving = out.released = True
    out.leaving_at = out.leaving_at or now
    out.released_at = out.released_at or now
    out.status.state, out.status.at = pb.TASK_STATE_ORPHANED, now
    out.status.error = why
    return out


def retired(task: pb.Task) -> pb.Task:
    """A dead task whose slot goes on without it."""
    out = changed(task)
    out.desired_state = pb.TASK_STATE_SHUTDOWN
    return out


def promoted(task: pb.Task) -> pb.Task:
    """Prepared, and now to be started."""
    out = changed(task)
    out.desired_state = pb.TASK_STATE_RUNNING
    return out
