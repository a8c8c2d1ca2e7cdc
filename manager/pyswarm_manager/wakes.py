"""Which keys of the leader's loops a change wakes. Pure. Waking too much costs a look, too little costs correctness:
in doubt it wakes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import is_terminal, is_wanted
from pyswarm_manager.world import Change

SCHEDULER = "scheduler"
DRAIN = "drain"
_SERVICE = "service/"


def service_key(service_id: str) -> str:
    return _SERVICE + service_id


def service_of(key: str) -> str | None:
    """The service id of a `service/…` key."""
    return key.removeprefix(_SERVICE) if key.startswith(_SERVICE) else None


def all_keys(world: World) -> set[str]:
    """What a new leader looks at. A service that is gone may have left tasks behind: they name it."""
    owners = {task.service_id for task in world.tasks.values()}
    return {SCHEDULER, DRAIN} | {service_key(i) for i in owners.union(world.services)}


def wakes(change: Change, world: World) -> set[str]:
    """`world` is as it is after the change."""
    match change.kind:
        case "service":
            return _service(change.id, cast("pb.Service | None", change.old), cast("pb.Service | None", change.new))
        case "rollout":
            rollout = cast("pb.Rollout", change.new or change.old)
            return {service_key(rollout.service_id)}
        case "task":
            return _task(cast("pb.Task | None", change.old), cast("pb.Task | None", change.new))
        case "node":
            return {SCHEDULER, DRAIN, *_services_of_node(change.id, world)}
        case "network":
            # Room for addresses, and services whose VIPs come from it.
            return {SCHEDULER, *(service_key(s.id) for s in world.services.values() if _uses(s, change.id))}
        case _:
            return set()


def _service(service_id: str, old: pb.Service | None, new: pb.Service | None) -> set[str]:
    keys = {service_key(service_id)}
    # Its VIPs, published ports and networks decide about blocks, too, and its tasks wait for its VIPs.
    if old is None or new is None or _uses_of_addresses(old) != _uses_of_addresses(new):
        keys.add(SCHEDULER)
    return keys


def _uses_of_addresses(service: pb.Service) -> tuple[object, ...]:
    return (
        service.removing,
        [(vip.network_id, vip.address) for vip in service.vips],
        [(port.protocol, port.published, port.mode) for port in service.spec.ports],
        [attachment.network_id for attachment in service.spec.task.networks],
    )


def _task(old: pb.Task | None, new: pb.Task | None) -> set[str]:
    either = new if new is not None else old
    assert either is not None
    keys = {service_key(either.service_id)}
    if (new is not None and new.status.state < pb.TASK_STATE_ASSIGNED) or _makes_room(old, new):
        keys.add(SCHEDULER)
    if any(_may_concern_balancers(task) for task in (old, new) if task is not None):
        keys.add(DRAIN)
    return keys


def _makes_room(old: pb.Task | None, new: pb.Task | None) -> bool:
    """Resources, a host port, an address or a place under a maximum per node that somebody may wait for."""
    if old is None:
        return False
    if new is None:
        return True
    return (
        (is_terminal(new) and not is_terminal(old))
        or (new.addresses_free and not old.addresses_free)
        or (is_wanted(old) and not is_wanted(new))
    )


def _may_concern_balancers(task: pb.Task) -> bool:
    return task.status.state >= pb.TASK_STATE_RUNNING or task.leaving or task.desired_state >= pb.TASK_STATE_SHUTDOWN


def _services_of_node(node_id: str, world: World) -> Iterable[str]:
    for task in world.tasks_of_node(node_id):
        yield service_key(task.service_id)
    for service in world.services.values():
        if service.spec.mode == spec.SERVICE_MODE_GLOBAL:
            yield service_key(service.id)


def _uses(service: pb.Service, network_id: str) -> bool:
    return any(attachment.network_id == network_id for attachment in service.spec.task.networks)
