"""What the nodes' confirmations allow: balanced, out of the balancers and released, addresses free.

A node that has confirmed revision N has everything in its kernel that follows from the store up to N. So what it knows
of a task is told by comparing N with the task's version. That version is the one of its last write, whatever that
was: a later write (a status, say) only makes this wait for more. It cannot wait for ever, for a task that is about to
leave has few states left to report. Whether a task is an endpoint depends on its node, too: there the later one of the
two versions counts.

Live nodes are those that are not down and that apply what they get (`serving`); a node that is down takes no part until
it returns, and then it serves only after it has applied a complete set. An address, though, is free only when **every**
registered node has confirmed: one that was cut off may still send to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import Acks, Plan, Put, World, Write, changed
from pyswarm_manager.tasks import display_name, endpoint_version, is_endpoint, is_terminal


def plan(world: World, acks: Acks, now: float) -> Plan:
    """Over all tasks. Each write is a step of its own: one that meets a conflict does not hold up those before it."""
    confirmed = _confirmed(world, acks)
    steps: list[tuple[Write, ...]] = []
    notes: list[str] = []
    for task in world.tasks.values():
        out, note = _next(world, task, confirmed, now)
        if out is not None:
            steps.append((Put(out),))
            notes.append(f"{display_name(task)}: {task.id} {note}")
    return Plan(steps=tuple(steps), notes=tuple(notes))


def awaited(world: World, acks: Acks) -> Mapping[str, int]:
    """Node id → the highest revision that some task waits for it to confirm, and which it has not confirmed yet: the
    dispatcher owes these nodes an endpoint update of at least that revision, an empty one where nothing changed."""
    live, every = 0, 0
    for task in world.tasks.values():
        if _waits_for_all(task):
            every = max(every, task.version)
        if _waits_to_be_balanced(world, task):
            live = max(live, endpoint_version(task, world.nodes[task.node_id]))
        elif _waits_to_leave(task) and _may_have_served(task):
            live = max(live, task.version)
    wanted = {node.id: max(every, live if _is_live(node) else 0) for node in world.nodes.values()}
    return {node_id: revision for node_id, revision in wanted.items() if revision > acks.applied(node_id)}


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The revisions that all live nodes, and all registered nodes, have confirmed; infinite where there are none."""

    live: float
    every: float

    def has_served(self, version: int) -> bool:
        """Somebody's balancer, and every live one, has it."""
        return version <= self.live < float("inf")


def _confirmed(world: World, acks: Acks) -> _Confirmed:
    nodes = list(world.nodes.values())
    return _Confirmed(
        live=min((acks.applied(node.id) for node in nodes if _is_live(node)), default=float("inf")),
        every=min((acks.applied(node.id) for node in nodes), default=float("inf")),
    )


def _is_live(node: pb.Node) -> bool:
    return node.state != pb.NODE_STATE_DOWN and node.serving


def _next(world: World, task: pb.Task, confirmed: _Confirmed, now: float) -> tuple[pb.Task | None, str]:
    out: pb.Task | None = None
    note = ""
    if _waits_to_be_balanced(world, task):
        if confirmed.has_served(endpoint_version(task, world.nodes[task.node_id])):
            out, note = changed(task), "is in all balancers"
            out.balanced_at = now
    elif _waits_to_leave(task):
        served = _may_have_served(task)
        if not served or confirmed.live >= task.version:
            out, note = changed(task), "has left all balancers" if served else "never served, and is released"
            out.out_of_balancers_at = now if served else 0
            out.released = True
            out.released_at = task.released_at or now
    if _waits_for_all(task) and (not task.addresses or confirmed.every >= task.version):
        out, note = out or changed(task), f"{note}, and its addresses are free".removeprefix(", and ")
        out.addresses_free = True
    return out, note


def _waits_to_be_balanced(world: World, task: pb.Task) -> bool:
    return task.balanced_at == 0 and is_endpoint(task, world.nodes.get(task.node_id))


def _waits_to_leave(task: pb.Task) -> bool:
    return task.leaving and (not task.released or (task.out_of_balancers_at == 0 and _may_have_served(task)))


def _waits_for_all(task: pb.Task) -> bool:
    return is_terminal(task) and not task.addresses_free


def _may_have_served(task: pb.Task) -> bool:
    """Some balancer may have it. A task that leaves before it runs never becomes an endpoint: no state that is
    reported later makes it one; unless it took over another's addresses."""
    was_healthy = task.status.timings.healthy_at > 0 or task.status.state == pb.TASK_STATE_RUNNING
    return task.balanced_at > 0 or was_healthy or task.took_over
