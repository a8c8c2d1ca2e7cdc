"""What agents report becomes what is stored of their tasks. Pure: rules here, the writing in `reports`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import Put, World, changed
from pyswarm_manager.tasks import is_terminal

# How many successors of one task an agent may have made while no manager was there. A bound on work, not a policy:
# with the longest restart delay of 300 s it is three days and a half.
MAX_SUCCESSORS = 1024
MAX_STATUS_BYTES = 20_000
MAX_GROUP = 100  # writes; a transaction takes 127
_STATES = frozenset(pb.TaskState.values())


@dataclass(frozen=True, slots=True)
class Report:
    """One update, and the node whose certificate it came with."""

    node_id: str
    update: wire.StatusUpdate


def writes(world: World, reports: Iterable[Report]) -> list[tuple[Put, ...]]:
    """What to store, one write per task, in order of first mention; a group is to be stored as one. What tells nothing
    new, nothing known or nothing of the reporter's own is left out: to the agent it is as good as stored."""
    now_stored = _Draft(world)
    for report in reports:
        task = now_stored.get(report.update.task_id)
        if task is None and report.update.HasField("adopted"):
            _adopt(now_stored, report)
        elif task is not None and task.node_id == report.node_id:
            status = advanced(task.status, fitting(report.update.status))
            if status is not None:
                now_stored.edit(task).status.CopyFrom(status)
    return now_stored.groups()


def advanced(stored: pb.TaskStatus, reported: pb.TaskStatus) -> pb.TaskStatus | None:
    """The status to store; None when the report is old or the same. A state only advances and the end is the end, but
    what is said about the same state (health, message, drain report) may change."""
    if stored.state < pb.TASK_STATE_ASSIGNED or reported.state < stored.state or reported.state not in _STATES:
        return None  # not the agent's yet; from before; or from an agent that knows more states than we do
    if stored.state >= pb.TASK_STATE_COMPLETE and reported.state != stored.state:
        return None
    return None if reported == stored else reported


def fitting(reported: pb.TaskStatus) -> pb.TaskStatus:
    """Cut to what can be stored with a task, should an agent be talkative beyond reason."""
    if reported.ByteSize() <= MAX_STATUS_BYTES:
        return reported
    cut = pb.TaskStatus()
    cut.CopyFrom(reported)
    cut.message, cut.error = cut.message[:1000], cut.error[:1000]
    cut.container_id = cut.container_id[:100]
    cut.last_lines[:] = [line[:500] for line in reported.last_lines[-10:]]
    return cut


class _Draft:
    """Tasks as they will be, so that several reports about one task become one write."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._edited: dict[str, pb.Task] = {}
        self._group_of: dict[str, list[str]] = {}

    def get(self, task_id: str) -> pb.Task | None:
        return self._edited.get(task_id) or self._world.tasks.get(task_id)

    def edit(self, task: pb.Task) -> pb.Task:
        if task.id not in self._edited:
            self._edited[task.id] = changed(task)
            self._group_of[task.id] = [task.id]
        return self._edited[task.id]

    def bind(self, task: pb.Task, other: pb.Task) -> None:
        """Both are written, and only together."""
        self.edit(task)
        self.edit(other)
        first, second = self._group_of[task.id], self._group_of[other.id]
        if first is not second:
            first += second
            self._group_of.update((task_id, first) for task_id in second)

    def holders(self, node_id: str) -> dict[tuple[str, str], str]:
        """(network, address) → the task that holds it, on this node."""
        tasks = {t.id: t for t in self._world.tasks_of_node(node_id)} | self._edited
        return {
            (a.network_id, a.address): t.id
            for t in tasks.values()
            if t.node_id == node_id and not t.addresses_free
            for a in t.addresses
        }

    def groups(self) -> list[tuple[Put, ...]]:
        heads = [group for task_id, group in self._group_of.items() if group[0] == task_id]
        return [tuple(Put(self._edited[task_id]) for task_id in part) for group in heads for part in _parts(group)]


def _parts(group: list[str]) -> list[list[str]]:
    """What one transaction can take. Of a longer chain of successors the newest go first: they fill the slot."""
    return [group[start : start + MAX_GROUP] for start in range(0, len(group), MAX_GROUP)][::-1]


def _adopt(draft: _Draft, report: Report) -> None:
    """An agent that had no manager has filled the slot of a task that ended with a successor of its own making. It is
    taken over when its id proves which task it succeeds; all that matters is copied from there, not from the agent."""
    adopted = report.update.adopted
    predecessor = draft.get(adopted.predecessor_id)
    if (
        predecessor is None
        or predecessor.node_id != report.node_id
        or adopted.id != report.update.task_id
        or not _is_successor(adopted.id, predecessor.id)
    ):
        return
    holders = draft.holders(report.node_id)
    addresses = [(a.network_id, a.address) for a in adopted.addresses]
    former = [draft.get(holders[a]) for a in addresses if a in holders]
    family = [predecessor, *(task for task in former if task is not None and task.id != predecessor.id)]
    if any(task.predecessor_id != predecessor.id for task in family[1:]):
        return  # somebody else's address: the agent is told that this task is not known
    task = changed(predecessor)
    task.id, task.version, task.created_at = adopted.id, 0, adopted.created_at
    task.predecessor_id, task.rollout_id = predecessor.id, ""
    # If the manager has given the slot to another meanwhile, the successor goes the way its predecessor went.
    task.desired_state = max(predecessor.desired_state, pb.TASK_STATE_RUNNING)
    # A dead predecessor was told to go without leaving any balancer; its successor lives, and must leave them.
    task.leaving = task.desired_state > pb.TASK_STATE_RUNNING
    task.leaving_at = (predecessor.leaving_at or adopted.created_at) if task.leaving else 0
    task.released, task.released_at, task.out_of_balancers_at = False, 0, 0
    task.balanced_at, task.start_after, task.addresses_free, task.took_over = 0, 0, False, True
    task.status.CopyFrom(fitting(report.update.status))
    del task.addresses[:]
    task.addresses.extend(adopted.addresses)
    task.restarts = max(adopted.restarts, predecessor.restarts + 1)
    task.quick_failures, task.window_at, task.window_restarts = (
        adopted.quick_failures,
        adopted.window_at,
        adopted.window_restarts,
    )
    for old in family:
        _succeed(draft, old, addresses, adopted.created_at)
        draft.bind(old, task)


def _succeed(draft: _Draft, old: pb.Task, addresses: Collection[tuple[str, str]], at: float) -> None:
    """`old` has ended, and its address is its successor's: an address has one holder."""
    kept = [a for a in old.addresses if (a.network_id, a.address) not in addresses]
    if len(kept) != len(old.addresses):
        edited = draft.edit(old)
        del edited.addresses[:]
        edited.addresses.extend(kept)
    if not is_terminal(old):
        # Its end is in the same batch, or was lost; a slot has one container.
        edited = draft.edit(old)
        edited.status.state = pb.TASK_STATE_FAILED
        edited.status.at = at
        edited.status.error = edited.status.error or "it ended while no manager could be reached"


def _is_successor(task_id: str, predecessor_id: str) -> bool:
    return any(task_id == derived_id("successor", predecessor_id, str(n)) for n in range(1, MAX_SUCCESSORS + 1))
