"""What a rollout did, task by task: kept in the rollout, so that it outlives the tasks' own objects.

The rollout is one value in the store, which takes 1.5 MiB. Of a service of thousands of tasks the first FULL_ROWS are
told of in full; of the others, those whose connections were counted, and of them nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.tasks import display_name, is_wanted

FULL_ROWS = 1000

OUTCOMES = {
    pb.ROLLOUT_STATE_RUNNING: "",
    pb.ROLLOUT_STATE_ROLLING_BACK: "",
    pb.ROLLOUT_STATE_COMPLETED: "completed",
    pb.ROLLOUT_STATE_ROLLED_BACK: "rolled back",
    pb.ROLLOUT_STATE_PAUSED: "paused",
    pb.ROLLOUT_STATE_SUPERSEDED: "superseded",
}


def update(receipt: pb.Receipt, view: View, rollout: pb.Rollout, tasks: Sequence[pb.Task]) -> None:
    """`rollout` is the one that the receipt belongs to, its progress and state up to date; `tasks`: all of the service
    that are still there. What is known of others stays."""
    rows = {row.task_id: row for row in receipt.tasks}
    old_ids = {p.old_task_id for p in rollout.slots if p.old_task_id}
    for task in sorted(tasks, key=lambda t: (t.slot, t.node_id, t.created_at, t.id)):
        is_new = task.rollout_id == rollout.id
        told = task.desired_state >= pb.TASK_STATE_SHUTDOWN
        went = told and (task.leaving_at >= rollout.started_at > 0 or task.id in old_ids)
        if not (is_new or task.id in rows or went):
            continue
        row = rows.get(task.id)
        if row is None:
            is_full = len(receipt.tasks) < FULL_ROWS
            if not (is_full or _is_counted(task)):
                continue
            row = rows[task.id] = receipt.tasks.add(task_id=task.id, is_new=is_new, name=display_name(task) * is_full)
        if row.name:
            _fill(row, view, task)
        if _is_counted(task):
            row.drain.CopyFrom(task.status.drain)
    staying = {task.id for task in tasks if is_wanted(task)}
    replaced = sum(1 for task_id in old_ids if task_id not in staying)
    receipt.replaced = max(receipt.replaced, replaced)  # a rollback starts its slots anew
    receipt.failures = rollout.failures
    receipt.late_connections = sum(row.drain.late_connections for row in receipt.tasks)
    receipt.open_at_stop = sum(row.drain.open_at_stop for row in receipt.tasks)
    receipt.resets = sum(row.drain.resets for row in receipt.tasks)
    is_late = rollout.state == pb.ROLLOUT_STATE_COMPLETED and rollout.deadline_passed
    receipt.outcome = "deadline passed" if is_late else OUTCOMES[rollout.state]
    receipt.reason = rollout.reason


def ends(row: pb.TaskReceipt) -> tuple[float, float, float]:
    """The stages of its way out: worth storing as soon as they are known."""
    return row.out_of_balancers_at, row.drained_at, row.stopped_at


def _fill(row: pb.TaskReceipt, view: View, task: pb.Task) -> None:
    timings = task.status.timings
    node = view.world.nodes.get(task.node_id)
    row.node = (node.description.hostname or node.id) if node is not None else row.node or task.node_id
    row.created_at = task.created_at
    row.image_at = timings.image_at
    row.started_at = timings.started_at
    row.healthy_at = timings.healthy_at
    row.in_balancers_at = task.balanced_at
    row.leaving_at = task.leaving_at
    row.out_of_balancers_at = task.out_of_balancers_at
    row.drained_at = timings.drained_at
    row.stopped_at = timings.stopped_at
    if task.status.HasField("drain"):
        row.drain.CopyFrom(task.status.drain)


def _is_counted(task: pb.Task) -> bool:
    drain = task.status.drain
    return bool(drain.late_connections or drain.open_at_stop or drain.resets)
