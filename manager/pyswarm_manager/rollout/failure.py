"""What counts as a failed rollout, what is then done, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.fitness import is_balanced, is_unhealthy
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.tasks import display_name


class Action(Enum):
    GO_ON = "continue"
    PAUSE = "pause"
    ROLL_BACK = "roll back"


def is_over_ratio(view: View, slots: Sequence[pb.SlotProgress]) -> bool:
    failed = sum(1 for p in slots if p.phase == pb.SLOT_PHASE_FAILED)
    return failed > 0 and failed / len(slots) > view.policy.max_failure_ratio


def action(view: View, rollout: pb.Rollout) -> Action:
    """A rollback, automatic or asked for, never rolls back in its turn."""
    wanted = view.policy.failure_action
    if wanted == spec.FAILURE_ACTION_CONTINUE:
        return Action.GO_ON
    if wanted == spec.FAILURE_ACTION_PAUSE or view.is_backward or not can_roll_back(view, rollout):
        return Action.PAUSE
    return Action.ROLL_BACK


def can_roll_back(view: View, rollout: pb.Rollout) -> bool:
    """There is a spec from before this rollout. (A deploy that changed nothing has none: it began where it is.)"""
    return view.service.HasField("previous_spec") and rollout.from_version not in (0, rollout.to_version)


def is_first_deploy(rollout: pb.Rollout) -> bool:
    return rollout.from_version == 0


def why_failed(view: View, task: pb.Task) -> str:
    """web.2 on host-1 failed: exit code 3"""
    node = view.world.nodes.get(task.node_id)
    where = f" on {node.description.hostname or node.id}" if node is not None else ""
    name = display_name(task) if task.slot else task.service_name
    status = task.status
    if is_unhealthy(task):
        return f"{name}{where} became unhealthy" + _detail(status.message.removeprefix("unhealthy: "), "unhealthy")
    if status.state == pb.TASK_STATE_REJECTED:
        return f"{name}{where} could not be prepared" + _detail(status.error or status.message)
    if status.state == pb.TASK_STATE_COMPLETE:
        return f"{name}{where} ended with exit code 0, but was to run for ever"
    return f"{name}{where} failed" + _detail(status.error or status.message)


def why_late(view: View, slots: Sequence[pb.SlotProgress]) -> tuple[str, str]:
    """(the sentence, the id of the task that tells most about it or "")."""
    open_slots = [p for p in slots if not _is_right(view, p)]
    text = f"the deadline of {view.policy.deadline:g} s passed with {len(open_slots)} of {len(slots)} tasks not ready"
    stuck = [task for p in open_slots if (task := view.world.tasks.get(p.new_task_id)) is not None]
    # What cannot be placed explains itself best; then what has come least far.
    task = min(stuck, key=lambda t: (not t.status.message, t.status.state, t.slot), default=None)
    if task is None:
        return text, ""
    detail = task.status.error or task.status.message
    name = display_name(task) if task.slot else task.service_name
    return f"{text}; {name} {(detail and f'is stuck: {detail}') or 'is not ready'}", task.id


def why_draining(view: View, old: Sequence[pb.Task]) -> str:
    tasks = "1 old task was" if len(old) == 1 else f"{len(old)} old tasks were"
    return f"the deadline of {view.policy.deadline:g} s passed while {tasks} still draining"


def _is_right(view: View, progress: pb.SlotProgress) -> bool:
    task = view.world.tasks.get(progress.new_task_id)
    return progress.phase == pb.SLOT_PHASE_DONE and (task is None or is_balanced(view.world, task))


def _detail(text: str, without: str = "") -> str:
    return f": {text}" if text and text != without else ""
