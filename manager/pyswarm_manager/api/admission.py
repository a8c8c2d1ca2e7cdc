"""Requests about services: is it valid, and if so, what is stored for it.

Each function gets the world and returns new messages; nothing is written here. Ids come from the caller. The digest and
platforms of the image were resolved before, by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyswarm_core.errors import AlreadyExists, Conflict, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import DEFAULT_NETWORK
from pyswarm_manager.api import defaults, ports, refs
from pyswarm_manager.api.check import check_replicas, check_service
from pyswarm_manager.plan import World, changed


class Admitted(NamedTuple):
    """What to store, in one transaction: both are new or changed (the service carries its version)."""

    service: pb.Service
    rollout: pb.Rollout
    warnings: list[str]


def create_service(world: World, wanted: spec.ServiceSpec, service_id: str, rollout_id: str, now: float) -> Admitted:
    """InvalidInput, AlreadyExists (name, port), NotFound (network)."""
    complete, warnings = _complete(world, service_id, wanted, before=None)
    _check_name_free(world, complete.name)
    service = pb.Service(
        id=service_id,
        created_at=now,
        updated_at=now,
        spec=complete,
        spec_version=1,
        rollout_id=rollout_id,
    )
    return Admitted(service, _rollout(service, rollout_id, 0), warnings)


def update_service(
    world: World, service: pb.Service, wanted: spec.ServiceSpec, rollout_id: str, now: float, *, version: int = 0
) -> Admitted:
    """`wanted`: the whole new spec. `version`: of the service it was made from; Conflict when that has changed since
    (0: whatever is stored now).

    A spec that is the same as before raises no spec version and keeps the previous spec (so that a rollback still leads
    to something else); its rollout has nothing to do.
    """
    _check_can_change(service)
    if version and version != service.version:
        raise Conflict(f"Service {service.spec.name} was changed meanwhile: look at it and try again.")
    named = spec.ServiceSpec()
    named.CopyFrom(wanted)
    named.name = named.name or service.spec.name
    if named.name != service.spec.name:
        raise InvalidInput(f"Service {service.spec.name} cannot be renamed to {named.name}: create another one.")
    if named.mode != service.spec.mode:
        raise InvalidInput(
            f"The mode of service {service.spec.name} cannot be changed: remove it and create it with the other mode."
        )
    complete, warnings = _complete(world, service.id, named, before=service.spec)
    return _change(service, complete, rollout_id, now, warnings=warnings)


def scale(service: pb.Service, replicas: int, rollout_id: str, now: float) -> Admitted:
    _check_can_change(service)
    if service.spec.mode == spec.SERVICE_MODE_GLOBAL:
        raise InvalidInput(f"Service {service.spec.name} is global: it runs once on each node and cannot be scaled.")
    if replicas < 0:
        raise InvalidInput(f"{replicas} replicas are not possible: give 0 or more.")
    wanted = spec.ServiceSpec()
    wanted.CopyFrom(service.spec)
    try:
        wanted.replicas = replicas
    except ValueError:  # does not fit the field
        raise InvalidInput(f"{replicas} replicas are too many.") from None
    check_replicas(wanted)
    return _change(service, wanted, rollout_id, now)


def scale_services(
    world: World, targets: Sequence[tuple[str, int]], rollout_ids: Sequence[str], now: float
) -> list[Admitted]:
    """All or none. `targets`: (reference, replicas), each with a rollout's id."""
    if not targets:
        raise InvalidInput("No service is named: write NAME=REPLICAS.")
    admitted: dict[str, Admitted] = {}
    for (ref, replicas), rollout_id in zip(targets, rollout_ids, strict=True):
        service = refs.service(world, ref)
        if service.id in admitted:
            raise InvalidInput(f"Service {service.spec.name} is named twice.")
        admitted[service.id] = scale(service, replicas, rollout_id, now)
    return list(admitted.values())


def rollback(world: World, service: pb.Service, rollout_id: str, now: float) -> Admitted:
    """To the spec before the last change; doing it twice leads back. PreconditionFailed: there is none. What the old
    spec needs may be gone or taken: NotFound, AlreadyExists."""
    _check_can_change(service)
    if not service.HasField("previous_spec"):
        raise PreconditionFailed(f"Service {service.spec.name} was never changed: there is no spec to go back to.")
    wanted = spec.ServiceSpec()
    wanted.CopyFrom(service.previous_spec)
    _check_networks(world, wanted)
    ports.check_conflicts(world, service.id, wanted)
    return _change(service, wanted, rollout_id, now, kind=pb.ROLLOUT_KIND_ROLLBACK)


def remove_service(service: pb.Service, now: float) -> pb.Service:
    """Its tasks drain and go, then the object itself. Asking again changes nothing."""
    if service.removing:
        return service
    copy = changed(service)
    copy.removing = True
    copy.updated_at = now
    return copy


def _change(
    service: pb.Service,
    wanted: spec.ServiceSpec,
    rollout_id: str,
    now: float,
    *,
    kind: pb.RolloutKind.ValueType = pb.ROLLOUT_KIND_DEPLOY,
    warnings: list[str] | None = None,
) -> Admitted:
    before = service.spec_version
    copy = changed(service)
    if wanted != service.spec:
        copy.previous_spec.CopyFrom(service.spec)
        copy.spec.CopyFrom(wanted)
        copy.spec_version = before + 1
    copy.updated_at = now
    copy.rollout_id = rollout_id
    return Admitted(copy, _rollout(copy, rollout_id, before, kind), warnings or [])


def _rollout(
    service: pb.Service,
    rollout_id: str,
    from_version: int,
    kind: pb.RolloutKind.ValueType = pb.ROLLOUT_KIND_DEPLOY,
) -> pb.Rollout:
    """Its times are the leader's to set: the clock of the manager that was asked may be another one."""
    return pb.Rollout(
        id=rollout_id,
        service_id=service.id,
        service_name=service.spec.name,
        kind=kind,
        state=pb.ROLLOUT_STATE_RUNNING,
        from_version=from_version,
        to_version=service.spec_version,
    )


def _complete(
    world: World, service_id: str, wanted: spec.ServiceSpec, *, before: spec.ServiceSpec | None
) -> tuple[spec.ServiceSpec, list[str]]:
    """The complete, checked spec that is stored for this one, and warnings."""
    complete = spec.ServiceSpec()
    complete.CopyFrom(wanted)
    defaults.complete(complete)
    check_service(complete)
    _resolve_networks(world, complete)
    ports.fill_ports(world, service_id, complete, before.ports if before is not None else ())
    ports.check_conflicts(world, service_id, complete)
    warnings = [*defaults.force_order(complete), *ports.warnings(complete)]
    return complete, warnings


def _resolve_networks(world: World, wanted: spec.ServiceSpec) -> None:
    """Names and prefixes become ids; without any network the service joins `default`."""
    task = wanted.task
    if not task.networks:
        task.networks.add(network_id=DEFAULT_NETWORK)
    seen: set[str] = set()
    for attachment in task.networks:
        network = refs.network(world, attachment.network_id)
        if network.removing:
            raise PreconditionFailed(f"Network {network.spec.name} is being removed: no service can join it.")
        if network.id in seen:
            raise InvalidInput(f"Network {network.spec.name} is named twice.")
        seen.add(network.id)
        attachment.network_id = network.id


def _check_networks(world: World, wanted: spec.ServiceSpec) -> None:
    for attachment in wanted.task.networks:
        network = world.networks.get(attachment.network_id)
        if network is None or network.removing:
            name = network.spec.name if network is not None else attachment.network_id
            raise PreconditionFailed(
                f"The previous spec of service {wanted.name} needs network {name}, which is gone: update the service "
                "instead."
            )


def _check_name_free(world: World, name: str) -> None:
    for other in world.services.values():
        if other.spec.name == name:
            state = "is still being removed: try again when its tasks have stopped" if other.removing else "exists"
            raise AlreadyExists(f"A service {name} {state}.")


def _check_can_change(service: pb.Service) -> None:
    if service.removing:
        raise PreconditionFailed(f"Service {service.spec.name} is being removed: it cannot be changed any more.")
