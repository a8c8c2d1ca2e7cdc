"""Services through the API: admitted, their images pinned, and stored with their rollout in one transaction."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pyswarm_core.ids import new_id
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api import admission, refs
from pyswarm_manager.api.admission import Admitted
from pyswarm_manager.api.admissions import Admissions, Decision
from pyswarm_manager.api.images import parse_reference
from pyswarm_manager.api.resolve import Resolver, check_auth, pin
from pyswarm_manager.clock import Clock
from pyswarm_manager.plan import Put, World, Write


class Services:
    def __init__(
        self, world: World, admissions: Admissions, resolver: Resolver, clock: Clock, rng: random.Random
    ) -> None:
        self._world = world
        self._admissions = admissions
        self._resolver = resolver
        self._clock = clock
        self._rng = rng

    async def create(self, request: control.CreateServiceRequest) -> control.ServiceResponse:
        service_id, rollout_id = new_id(self._rng), new_id(self._rng)
        wanted = _copy(request.spec)
        wanted.task.container.digest = ""
        auth = _auth(request.auth, service_id) if request.HasField("auth") else None
        # What is wrong is said before a registry is asked.
        admission.create_service(self._world, wanted, service_id, rollout_id, self._clock.now())
        warning = await self._pin(wanted, auth)

        def decide(world: World) -> Decision[control.ServiceResponse]:
            admitted = admission.create_service(world, wanted, service_id, rollout_id, self._clock.now())
            return [*_puts(admitted), *_auth_put(world, auth)], _response(admitted, warning)

        return await self._admissions.admit(decide)

    async def update(self, request: control.UpdateServiceRequest) -> control.ServiceResponse:
        rollout_id = new_id(self._rng)
        service = refs.service(self._world, request.ref)
        wanted = _copy(request.spec)
        auth = _auth(request.auth, service.id) if request.HasField("auth") else None
        before = service.spec.task.container
        reference = parse_reference(wanted.task.container.image)
        is_same = reference.image == before.image and reference.digest in ("", before.digest)
        if is_same and not request.resolve_image:
            wanted.task.container.digest = before.digest
            del wanted.task.container.platforms[:]
            wanted.task.container.platforms.extend(before.platforms)
            warning = ""
        else:
            wanted.task.container.digest = ""
            self._update(self._world, service.id, request.version, wanted, rollout_id)
            warning = await self._pin(wanted, auth or self._world.auths.get(service.id))

        def decide(world: World) -> Decision[control.ServiceResponse]:
            admitted = self._update(world, service.id, request.version, wanted, rollout_id)
            return [*_puts(admitted), *_auth_put(world, auth)], _response(admitted, warning)

        return await self._admissions.admit(decide)

    async def scale(self, request: control.ScaleServicesRequest) -> control.ScaleServicesResponse:
        targets = [(target.ref, target.replicas) for target in request.targets]
        rollout_ids = [new_id(self._rng) for _ in targets]

        def decide(world: World) -> Decision[control.ScaleServicesResponse]:
            admitted = admission.scale_services(world, targets, rollout_ids, self._clock.now())
            writes = [write for one in admitted for write in _puts(one)]
            return writes, control.ScaleServicesResponse(services=[_response(one) for one in admitted])

        return await self._admissions.admit(decide)

    async def rollback(self, request: control.Ref) -> control.ServiceResponse:
        rollout_id = new_id(self._rng)
        service_id = refs.service(self._world, request.ref).id

        def decide(world: World) -> Decision[control.ServiceResponse]:
            admitted = admission.rollback(world, refs.service(world, service_id), rollout_id, self._clock.now())
            return _puts(admitted), _response(admitted)

        return await self._admissions.admit(decide)

    async def remove(self, request: control.Ref) -> control.Empty:
        service_id = refs.service(self._world, request.ref).id

        def decide(world: World) -> Decision[control.Empty]:
            service = world.services.get(service_id)
            if service is None or service.removing:
                return [], control.Empty()
            return [Put(admission.remove_service(service, self._clock.now()))], control.Empty()

        return await self._admissions.admit(decide)

    def _update(
        self, world: World, service_id: str, version: int, wanted: spec.ServiceSpec, rollout_id: str
    ) -> Admitted:
        service = refs.service(world, service_id)
        return admission.update_service(world, service, wanted, rollout_id, self._clock.now(), version=version)

    async def _pin(self, wanted: spec.ServiceSpec, auth: pb.RegistryAuth | None) -> str:
        container = wanted.task.container
        return await pin(container, parse_reference(container.image), self._resolver, auth)


def _copy(given: spec.ServiceSpec) -> spec.ServiceSpec:
    copy = spec.ServiceSpec()
    copy.CopyFrom(given)
    return copy


def _puts(admitted: Admitted) -> Sequence[Write]:
    return [Put(admitted.service), Put(admitted.rollout)]


def _auth(given: pb.RegistryAuth, service_id: str) -> pb.RegistryAuth:
    """InvalidInput when it is incomplete."""
    check_auth(given)
    return pb.RegistryAuth(id=service_id, host=given.host, username=given.username, password=given.password)


def _auth_put(world: World, auth: pb.RegistryAuth | None) -> Sequence[Write]:
    if auth is None:
        return []
    stored = world.auths.get(auth.id)
    put = pb.RegistryAuth()
    put.CopyFrom(auth)
    put.version = stored.version if stored is not None else 0
    return [Put(put)] if stored is None or put != stored else []


def _response(admitted: Admitted, *warnings: str) -> control.ServiceResponse:
    """The versions in it are those of before: the caller fills in what the store has given."""
    return control.ServiceResponse(
        service=admitted.service,
        rollout=admitted.rollout,
        warnings=[*(warning for warning in warnings if warning), *admitted.warnings],
    )
