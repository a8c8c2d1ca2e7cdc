"""Dead tasks and finished rollouts are kept for people to look at, but not for ever."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.slots import age
from pyswarm_manager.orchestrator.view import ACTIVE, View

KEPT_TASKS = 5  # dead tasks per slot
KEPT_ROLLOUTS = 10  # per service


def forgotten_tasks(view: View) -> list[pb.Task]:
    """Older than the newest five of their slot, or of a slot that is no more. Never one whose address may still be in
    somebody's balancer, nor the one that the newest rollout names as the reason for its failure."""
    named = view.rollout.failed_task_id if view.rollout is not None else ""
    alive = {slot.key for slot in (*view.wanted, *view.selection.held)}
    forgotten: list[pb.Task] = []
    for slot in view.slots.values():
        keep = KEPT_TASKS if slot.exists or slot.key in alive else 0
        past = sorted(slot.past, key=age, reverse=True)
        forgotten += [
            task for task in past[max(0, keep - len(slot.ended)) :] if task.addresses_free and task.id != named
        ]
    return forgotten


def forgotten_rollouts(view: View) -> list[pb.Rollout]:
    finished = [
        rollout
        for rollout in view.world.rollouts_of_service(view.service.id)
        if rollout.id != view.service.rollout_id and rollout.state not in ACTIVE
    ]
    finished.sort(key=lambda rollout: (rollout.started_at, rollout.id), reverse=True)
    return finished[KEPT_ROLLOUTS - 1 :]
