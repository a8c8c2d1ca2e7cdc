"""What the API answers, made from the world. Pure. Credentials are in no view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pyswarm_core.etcd.cluster import Member
from pyswarm_core.membership.member import API_PORT
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World, changed
from pyswarm_manager.tasks import is_healthy, is_terminal, is_wanted

FINISHED = frozenset(
    {
        pb.ROLLOUT_STATE_COMPLETED,
        pb.ROLLOUT_STATE_ROLLED_BACK,
        pb.ROLLOUT_STATE_PAUSED,
        pb.ROLLOUT_STATE_SUPERSEDED,
    }
)


def service_view(world: World, service: pb.Service) -> control.ServiceView:
    tasks = world.tasks_of_service(service.id)
    running = sum(is_wanted(task) and is_healthy(task) for task in tasks)
    if service.spec.mode == spec.SERVICE_MODE_GLOBAL:
        desired = sum(is_wanted(task) for task in tasks)
    else:
        desired = 0 if service.removing else service.spec.replicas
    return control.ServiceView(
        service=service, rollout=world.rollouts.get(service.rollout_id), running=running, desired=desired
    )


def rollout_view(world: World, rollout: pb.Rollout) -> control.RolloutView:
    tasks = world.tasks_of_service(rollout.service_id)
    return control.RolloutView(
        rollout=rollout,
        service=world.services.get(rollout.service_id),
        tasks=ordered(current(tasks)),
        nodes=node_addresses(world, tasks),
    )


def current(tasks: Iterable[pb.Task]) -> list[pb.Task]:
    """All that are not terminal, and the newest of each slot."""
    newest: dict[tuple[int, str], pb.Task] = {}
    for task in tasks:
        place = (task.slot, "" if task.slot else task.node_id)
        if place not in newest or (task.created_at, task.id) > (newest[place].created_at, newest[place].id):
            newest[place] = task
    kept = {task.id for task in newest.values()}
    return [task for task in tasks if task.id in kept or not is_terminal(task)]


def ordered(tasks: Iterable[pb.Task]) -> list[pb.Task]:
    """By service, slot and node; the newest first."""
    return sorted(tasks, key=lambda t: (t.service_name, t.slot, "" if t.slot else t.node_id, -t.created_at, t.id))


def node_addresses(world: World, tasks: Iterable[pb.Task]) -> list[wire.NodeAddress]:
    nodes = (world.nodes.get(node_id) for node_id in sorted({task.node_id for task in tasks}))
    return [
        wire.NodeAddress(node_id=n.id, number=n.number, address=n.address, hostname=n.description.hostname)
        for n in nodes
        if n is not None
    ]


def node_view(
    node: pb.Node, leader: pb.Leader | None, managers: Mapping[str, str], members: Sequence[Member] | None = None
) -> pb.Node:
    """With what is known of the manager on it. `managers`: id → API address of those that live. `members`: of etcd;
    None = not known."""
    if node.spec.role != spec.NODE_ROLE_MANAGER:
        return _leaving_view(node, managers, members)
    known = dict(managers)
    if leader is not None:
        known[leader.manager_id] = leader.address
    view = changed(node)
    view.manager.leader = leader is not None and leader.manager_id == node.id
    view.manager.reachable = node.id in known
    view.manager.address = known.get(node.id, f"{node.address}:{API_PORT}")
    view.manager.message = _missing(node, view.manager.reachable, members)
    return view


def _missing(node: pb.Node, is_reachable: bool, members: Sequence[Member] | None) -> str:
    """What a manager has not yet, one clause; "" = nothing."""
    own = [m for m in members or () if m.name == node.id]
    if members is not None and not own:
        host = f"://{node.address}:"
        if any(host in url for m in members for url in m.peer_urls):
            return "its etcd was added, and has not started yet"
        return "it has no etcd member yet"
    if own and own[0].is_learner:
        return "its etcd catches up, and has no vote yet"
    return "" if is_reachable else "it does not show that it lives"


def _leaving_view(node: pb.Node, managers: Mapping[str, str], members: Sequence[Member] | None) -> pb.Node:
    """A worker; one that was a manager may have something left of that."""
    rest = [
        *(["its manager still runs"] if node.id in managers else []),
        *(["its etcd is still a member"] if any(m.name == node.id for m in members or ()) else []),
        *(["its agent is a manager's"] if node.role == spec.NODE_ROLE_MANAGER else []),
    ]
    if not rest:
        return node
    view = changed(node)
    view.manager.message = " and ".join(rest)
    return view
