"""Checks of rollouts: what is said to have converged has, and what is blamed for a failure is to blame."""

from __future__ import annotations

from tests.simulation.checks.words import is_over
from tests.simulation.findings import Findings
from tests.simulation.truth import Truth

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

_CONVERGED = (pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_ROLLED_BACK)


class RolloutChecks:
    def __init__(self, truth: Truth, findings: Findings) -> None:
        self._truth = truth
        self._findings = findings
        truth.listeners.append(self.look)

    def look(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        if not isinstance(new, pb.Rollout) or not isinstance(old, pb.Rollout):
            return
        if new.state in _CONVERGED and old.state != new.state:
            self._converged(new)
        if new.failures > old.failures and new.failed_task_id != old.failed_task_id:
            self._blames(new)

    def _converged(self, rollout: pb.Rollout) -> None:
        """In each slot a task of the wanted spec has been in every balancer (it may have ended since), unless the
        rollout itself tells of tasks that failed or of a deadline that passed."""
        service = self._truth.services.get(rollout.service_id)
        if service is None or service.rollout_id != rollout.id or service.spec.mode == spec.SERVICE_MODE_GLOBAL:
            return
        if rollout.deadline_passed or any(p.phase == pb.SLOT_PHASE_FAILED for p in rollout.slots):
            return
        right = {
            task.slot
            for task in self._truth.tasks_of_service(service.id)
            if task.spec == service.spec.task and (task.balanced_at or _is_done(task))
        }
        if len(right) < service.spec.replicas:
            self._findings.add(
                "a rollout converges when every slot serves",
                f"{rollout.service_name} has converged; of {service.spec.replicas} slots {sorted(right)} are right",
                rollout.id, service.id,
            )  # fmt: skip

    def _blames(self, rollout: pb.Rollout) -> None:
        """Where the policy allows any number of tasks."""
        task = self._truth.tasks.get(rollout.failed_task_id)
        if task is None or not task.status.ended_with_host:
            return
        restart = task.spec.restart
        if restart.condition != spec.RESTART_CONDITION_NONE and not restart.max_attempts:
            self._findings.add(
                "a host that restarts fails no rollout",
                f"{rollout.service_name}'s counts {task.id} as a failure: {task.status.error}",
                rollout.id, task.id, task.node_id,
            )  # fmt: skip


def _is_done(task: pb.Task) -> bool:
    return is_over(task) and task.spec.restart.condition != spec.RESTART_CONDITION_ANY
