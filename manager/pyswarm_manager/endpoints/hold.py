"""A service without endpoints: do clients wait for one (SYNs are dropped and sent again), or are they refused at once?

They wait while an endpoint is on its way: in a rollout until its deadline, after a restart or a first start, and at
most 30 s. So a stop-first update of a single replica costs a pause and not errors.
"""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal, is_wanted

LONGEST = 30.0  # seconds


def ends_at(world: World, service: pb.Service, now: float, empty_since: float | None) -> float | None:
    """For a service without a serving endpoint: when the hold ends (may be past); None when nothing is on its way."""
    if service.removing or (service.spec.mode == spec.SERVICE_MODE_REPLICATED and service.spec.replicas == 0):
        return None
    end = (now if empty_since is None else empty_since) + LONGEST
    rollout = world.rollouts.get(service.rollout_id)
    if rollout is not None and rollout.state == pb.ROLLOUT_STATE_RUNNING:
        return min(end, rollout.deadline_at) if rollout.deadline_at else end
    if rollout is not None and rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK:
        return end
    return end if _is_starting(world, service) else None


def _is_starting(world: World, service: pb.Service) -> bool:
    """A task that is to run is not up yet, or one that ended will be followed by another."""
    wanted = [task for task in world.tasks_of_service(service.id) if is_wanted(task)]
    if not wanted:
        # All are on their way out and the orchestrator is about to make new ones; it makes none for what ran once.
        return service.spec.task.restart.condition != spec.RESTART_CONDITION_NONE
    return any(not is_terminal(task) or _will_restart(task) for task in wanted)


def _will_restart(task: pb.Task) -> bool:
    policy = task.spec.restart
    if policy.condition == spec.RESTART_CONDITION_NONE:
        return False
    if policy.condition == spec.RESTART_CONDITION_ON_FAILURE and task.status.state == pb.TASK_STATE_COMPLETE:
        return False
    if not policy.max_attempts:
        return True
    in_window = task.window_at > 0 and (policy.window <= 0 or task.status.at - task.window_at <= policy.window)
    return (task.window_restarts if in_window else 0) < policy.max_attempts
