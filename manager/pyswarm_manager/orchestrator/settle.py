"""Puts one slot right: which of its tasks stays, which go, whether it needs another.

Everything about a slot goes into one transaction, so it is never left with a task told to go and no successor. Nothing
here depends on a rollout but the leeway it gives: an update, a drained node, a changed label, an unhealthy task and a
lost node are all the same thing, a slot whose task should be another one. A task that serves is told to go only when
the one that replaces it is in every balancer (start-first) or is prepared (stop-first).
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_core.ids import new_id
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator import changes
from pyswarm_manager.orchestrator.exclusive import excludes
from pyswarm_manager.orchestrator.fitness import best, is_balanced, is_gone, is_misplaced, is_unhealthy, serves
from pyswarm_manager.orchestrator.restart import FRESH, Start, next_start
from pyswarm_manager.orchestrator.slots import TICK, Slot, age
from pyswarm_manager.orchestrator.view import View
from pyswarm_manager.plan import Put, Write, earliest
from pyswarm_manager.rollout.batches import Leeway
from pyswarm_manager.tasks import display_name


@dataclass(frozen=True, slots=True)
class Settled:
    """`writes` belong together."""

    writes: tuple[Write, ...] = ()
    wake_at: float | None = None
    notes: tuple[str, ...] = ()


def settle(view: View, slot: Slot, leeway: Leeway) -> Settled:
    """A slot that is to have a task."""
    world, now = view.world, view.now
    puts: list[pb.Task] = []
    notes: list[str] = []
    wake: float | None = None
    task_spec = _spec_of(view, slot, leeway)
    fit = [task for task in slot.wanted if _is_fit(view, task, task_spec)]
    keeper = best(world, fit)
    created = None
    if keeper is None:
        start = _start(view, slot, task_spec, leeway)
        if start is not None and start.made_at > now:
            wake = start.made_at
        elif start is not None:
            keeper = created = _create(view, slot, task_spec, start)
            notes.append(f"{display_name(created)}: new task {created.id}")
    if keeper is not None:
        others = [task for task in slot.wanted if task is not keeper]
        # Only one has to be replaced with care: whatever else serves in this slot is one too many.
        pillar = best(world, [task for task in others if serves(world, task)])
        for task in others:
            if task is not pillar or _may_go(view, task, keeper, is_new=keeper is created, leeway=leeway):
                puts.append(changes.dismiss(world, task, now))
                notes.append(f"{display_name(task)}: {task.id} goes, {keeper.id} stays")
        if created is not None:
            puts.append(created)
        elif (
            keeper.desired_state == pb.TASK_STATE_READY
            and now >= keeper.start_after
            and not _blocked(view, slot, keeper)
        ):
            puts.append(changes.promoted(keeper))
        if keeper.desired_state == pb.TASK_STATE_READY and keeper.start_after > now:
            wake = keeper.start_after
    else:
        puts += [changes.orphaned(task, now) for task in slot.wanted if is_gone(world, task)]
    puts += _retired(slot, alive=bool(slot.wanted) or keeper is not None)
    puts += _stranded(view, slot)
    return Settled(tuple(map(Put, puts)), earliest(wake), tuple(notes))


def dismiss(view: View, slot: Slot, *, forget: bool = False) -> Settled:
    """A slot that is to have none. `forget`: the service goes too."""
    puts = [changes.dismiss(view.world, task, view.now, forget=forget) for task in slot.wanted]
    puts += [changes.retired(task) for task in slot.ended]
    puts += _stranded(view, slot)
    notes = tuple(f"{display_name(task)}: {task.id} is surplus" for task in slot.wanted)
    return Settled(tuple(map(Put, puts)), None, notes)


def abandon(view: View, slot: Slot) -> Settled:
    """A slot that nothing is to be done about, but for what its nodes took with them."""
    return Settled(tuple(map(Put, _stranded(view, slot))))


def _spec_of(view: View, slot: Slot, leeway: Leeway) -> spec.TaskSpec:
    """What the slot's task should be made from: the service's spec once its turn in a rollout has come, until then
    what it has. A restart or a move does not change a version: only the rollout, which watches over it, does."""
    if slot.key in leeway.updates or view.current(slot) is not None:
        return view.target
    held = best(view.world, slot.wanted) or max(slot.ended, key=age, default=None)
    return held.spec if held is not None else view.target


def _is_fit(view: View, task: pb.Task, task_spec: spec.TaskSpec) -> bool:
    return (
        task.spec == task_spec
        and not view.is_away(task)
        and not is_unhealthy(task)
        and not is_misplaced(view.world, task, view.matches)
    )


def _start(view: View, slot: Slot, task_spec: spec.TaskSpec, leeway: Leeway) -> Start | None:
    """How another task would begin; None: it may not, now or at all."""
    if slot.key in leeway.updates:
        return leeway.updates[slot.key]
    if not slot.exists:
        return FRESH
    start = next_start(slot, task_spec, view.now)
    if start is None or start.made_at > view.now or not any(serves(view.world, task) for task in slot.wanted):
        return start
    return start if leeway.take_move(slot) else None


def _create(view: View, slot: Slot, task_spec: spec.TaskSpec, start: Start) -> pb.Task:
    # What it stands in for: the living task before the dead one.
    before = max(slot.wanted or slot.ended, key=age, default=None)
    of_target = task_spec == view.target
    held_version = next((task.spec_version for task in slot.tasks if task.spec == task_spec), 0)
    staying = [task for task in slot.wanted + slot.going if not view.is_away(task) or excludes(task, task_spec)]
    return changes.new_task(
        new_id(view.rng),
        view.service,
        slot.key,
        task_spec,
        start,
        now=view.now,
        created_at=_creation(slot, view.now),
        spec_version=view.service.spec_version if of_target else held_version,
        rollout_id=view.rollout.id if of_target and view.rollout is not None and view.is_active else "",
        predecessor_id=before.id if before is not None else "",
        wait=any(_stops_first(view, task, task_spec) for task in staying),
    )


def _creation(slot: Slot, now: float) -> float:
    """A slot's tasks are in the order of their creation, also when an earlier leader's clock was a little ahead."""
    return max([now, *(task.created_at + TICK for task in slot.tasks)])


def _may_go(view: View, task: pb.Task, keeper: pb.Task, *, is_new: bool, leeway: Leeway) -> bool:
    """`task` serves, and `keeper` is to take its place."""
    if _is_fit(view, task, keeper.spec):
        return True  # a twin: the keeper is worth more, so it serves too
    if is_new:
        return False
    if not _stops_first(view, task, keeper.spec):
        return is_balanced(view.world, keeper)
    if keeper.start_after > view.now or not (_is_prepared(keeper) or _makes_room(task, keeper)):
        return False
    return serves(view.world, keeper) or leeway.take_spare()


def _stops_first(view: View, task: pb.Task, successor: spec.TaskSpec) -> bool:
    """Two tasks cannot share a host port, and exclusive ones nothing, whatever order was asked for."""
    by_nature = excludes(task, successor) or _shares_port(task.spec, successor)
    return view.policy.order == spec.UPDATE_ORDER_STOP_FIRST or by_nature


def _shares_port(one: spec.TaskSpec, other: spec.TaskSpec) -> bool:
    ports = {(port.protocol, port.published) for port in one.host_ports}
    return any((port.protocol, port.published) in ports for port in other.host_ports)


def _is_prepared(task: pb.Task) -> bool:
    return task.status.state >= pb.TASK_STATE_READY


def _makes_room(task: pb.Task, keeper: pb.Task) -> bool:
    """The scheduler found no place for the keeper, and what it lacks may be what this task holds: stop-first is also
    for clusters that have no room for both."""
    if keeper.status.state >= pb.TASK_STATE_ASSIGNED or not keeper.status.message:
        return False
    wants = keeper.spec.resources
    return (
        _shares_port(task.spec, keeper.spec)
        or wants.reserve_nano_cpus > 0
        or wants.reserve_memory > 0
        or keeper.spec.placement.max_per_node > 0
    )


def _blocked(view: View, slot: Slot, keeper: pb.Task) -> bool:
    """Stop-first: somebody it must wait for is still there."""
    return any(
        task is not keeper
        and (excludes(task, keeper.spec) or (not view.is_away(task) and _stops_first(view, task, keeper.spec)))
        for task in slot.wanted + slot.going
    )


def _retired(slot: Slot, *, alive: bool) -> list[pb.Task]:
    """Dead tasks that have been dealt with: all, or all but the last where nothing follows it."""
    return [changes.retired(task) for task in (slot.ended if alive else slot.ended[:-1])]


def _stranded(view: View, slot: Slot) -> list[pb.Task]:
    """Told to stop, but their node was removed before they did."""
    return [changes.orphaned(task, view.now) for task in slot.going if is_gone(view.world, task)]
