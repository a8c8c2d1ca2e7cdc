"""A RolloutView → the lines that are shown. Pure.

overall progress: 2 out of 3 tasks
web.1: running   [==================================================>]
verify: waiting until all tasks have been stable for 5s
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyswarm_cli.output.tasks import hostnames, state_name
from pyswarm_cli.parse.durations import show as show_duration
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

BAR = 50
_STAGES = (
    pb.TASK_STATE_NEW,
    pb.TASK_STATE_PENDING,
    pb.TASK_STATE_ASSIGNED,
    pb.TASK_STATE_ACCEPTED,
    pb.TASK_STATE_PREPARING,
    pb.TASK_STATE_READY,
    pb.TASK_STATE_STARTING,
    pb.TASK_STATE_RUNNING,
)
_UNFINISHED = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK)
Place = tuple[int, str]  # slot and "" for a replicated service, 0 and the node's id for a global one


@dataclass(frozen=True, slots=True)
class Slot:
    """One line. `done`: it has the task that this rollout wants, and that takes connections."""

    name: str
    state: str
    note: str
    stage: int  # of len(_STAGES)
    done: bool

    def line(self) -> str:
        filled = BAR if self.done else min(self.stage, len(_STAGES) - 1) * BAR // len(_STAGES)
        bar = ("=" * filled + ">").ljust(BAR + 1)
        return f"{self.name}: {self.state:<9} [{bar}]" + (f" {self.note}" if self.note else "")


@dataclass(frozen=True, slots=True)
class Picture:
    overall: str
    slots: tuple[Slot, ...]
    verify: str  # "" while there is nothing to verify yet

    @property
    def lines(self) -> list[str]:
        return [self.overall, *(slot.line() for slot in self.slots), *([self.verify] if self.verify else [])]


def finished(rollout: pb.Rollout) -> bool:
    return rollout.state not in _UNFINISHED


def picture(view: control.RolloutView) -> Picture:
    slots = tuple(_slots(view))
    done = sum(slot.done for slot in slots)
    back = "rolling back update: " if view.rollout.state == pb.ROLLOUT_STATE_ROLLING_BACK else ""
    overall = f"overall progress: {back}{done} out of {len(slots)} tasks"
    verify = ""
    if done == len(slots) and not finished(view.rollout):
        policy = view.service.spec.rollback if back else view.service.spec.update
        if any(p.phase == pb.SLOT_PHASE_MONITORING for p in view.rollout.slots) and policy.monitor:
            verify = f"verify: waiting until all tasks have been stable for {show_duration(policy.monitor)}"
        else:
            verify = "verify: waiting until every host's load balancer has followed"
    return Picture(overall, slots, verify)


def _slots(view: control.RolloutView) -> list[Slot]:
    places: dict[Place, list[pb.Task]] = {}
    is_global = view.service.spec.mode == spec.SERVICE_MODE_GLOBAL
    if not is_global:
        places = {(number, ""): [] for number in range(1, view.service.spec.replicas + 1)}
    for task in view.tasks:
        place = (0, task.node_id) if is_global else (task.slot, "")
        if place in places or _live(task) or is_global:
            places.setdefault(place, []).append(task)
    progress = {(p.slot, p.node_id if p.slot == 0 else ""): p for p in view.rollout.slots}
    hosts = hostnames(view.nodes)
    return [
        _slot(place, tasks, progress.get(place), view, hosts)
        for place, tasks in sorted(places.items())
        if not is_global or place in progress or any(_wanted(task) for task in tasks)
    ]


def _slot(
    place: Place,
    tasks: list[pb.Task],
    progress: pb.SlotProgress | None,
    view: control.RolloutView,
    hosts: Mapping[str, str],
) -> Slot:
    number, node_id = place
    name = f"{view.service.spec.name}.{number or hosts.get(node_id, node_id)}"
    current = _current(tasks, progress)
    if current is None:
        return Slot(name, "waiting", "", 0, False)
    if number > view.service.spec.replicas and view.service.spec.mode == spec.SERVICE_MODE_REPLICATED:
        return Slot(name, "leaving", "its open connections end first", len(_STAGES) - 1, False)
    state = state_name(current.status.state)
    if current.status.state >= pb.TASK_STATE_COMPLETE:
        return Slot(name, state, current.status.error, 0, False)
    stage = sum(1 for known in _STAGES if known <= current.status.state)
    done = _done(current, progress, view)
    return Slot(name, state, _note(current, done, progress, view), stage, done)


def _note(task: pb.Task, done: bool, progress: pb.SlotProgress | None, view: control.RolloutView) -> str:
    if done:
        return "the old task is leaving" if progress and progress.phase == pb.SLOT_PHASE_DRAINING else ""
    if task.status.state == pb.TASK_STATE_RUNNING and not _fresh(task, view):
        return "to be replaced"
    return "" if task.status.message == state_name(task.status.state) else task.status.message


def _current(tasks: list[pb.Task], progress: pb.SlotProgress | None) -> pb.Task | None:
    """The task that the rollout brings in, else the newest that is wanted, else the newest."""
    if progress is not None and progress.new_task_id:
        for task in tasks:
            if task.id == progress.new_task_id and _wanted(task):
                return task
    wanted = [task for task in tasks if _wanted(task)]
    return max(wanted or tasks, key=lambda task: task.created_at, default=None)


def _done(task: pb.Task, progress: pb.SlotProgress | None, view: control.RolloutView) -> bool:
    if not _wanted(task) or task.leaving or task.status.state != pb.TASK_STATE_RUNNING:
        return False
    if task.status.health not in (pb.HEALTH_NONE, pb.HEALTH_HEALTHY):
        return False
    if progress is None:
        return bool(view.rollout.slots) or _fresh(task, view)
    if progress.phase in (pb.SLOT_PHASE_MONITORING, pb.SLOT_PHASE_DONE):
        return True
    return bool(progress.new_task_id) and task.id == progress.new_task_id


def _fresh(task: pb.Task, view: control.RolloutView) -> bool:
    return task.spec == view.service.spec.task


def _wanted(task: pb.Task) -> bool:
    return task.desired_state <= pb.TASK_STATE_RUNNING


def _live(task: pb.Task) -> bool:
    return task.status.state < pb.TASK_STATE_COMPLETE
