from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.errors import AlreadyExists, Conflict, InvalidInput, NotFound, PreconditionFailed, PyswarmError
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import admit, default_network
from pyswarm_manager.api import admission
from pyswarm_manager.api.admission import Admitted

NOW = 1000.0
Change = Callable[[spec.ServiceSpec], object]


def cluster() -> FakeWorld:
    world = FakeWorld()
    world.put(default_network(world, "net0", 1.0))
    world.put(admit(world, spec.NetworkSpec(name="back"), "net1", 2.0))
    return world


def minimal(name: str = "web", image: str = "web") -> spec.ServiceSpec:
    """What a request has to have."""
    return spec.ServiceSpec(name=name, replicas=1, task=spec.TaskSpec(container=spec.ContainerSpec(image=image)))


def create(world: FakeWorld, wanted: spec.ServiceSpec) -> Admitted:
    """Stored as the API stores it."""
    admitted = admission.create_service(world, wanted, f"id-{wanted.name}", f"r-{wanted.name}-1", NOW)
    world.put(admitted.service, admitted.rollout)
    return admitted._replace(service=world.services[admitted.service.id])


def updated(service: pb.Service, change: Change) -> spec.ServiceSpec:
    wanted = spec.ServiceSpec.FromString(service.spec.SerializeToString())
    change(wanted)
    return wanted


def test_create_fills_in_every_default() -> None:
    world = cluster()
    request = minimal()
    service, rollout, warnings = create(world, request)
    assert warnings == []
    assert request == minimal(), "the request is left as it was"
    wanted = service.spec
    task = wanted.task
    assert task.container.image == "docker.io/library/web:latest"
    assert (task.container.stop_grace, task.drain_timeout, task.restart.delay) == (10, 10, 1)
    assert task.restart.condition == spec.RESTART_CONDITION_ANY
    assert (task.log.max_size, task.log.max_file) == (10_000_000, 3)
    assert [a.network_id for a in task.networks] == ["net0"]
    assert wanted.update == build.policy()
    assert wanted.rollback == build.policy(action=spec.FAILURE_ACTION_PAUSE)
    assert not task.container.HasField("probe"), "the image's own health check is left alone"
    assert (service.spec_version, service.rollout_id, service.created_at) == (1, "r-web-1", NOW)
    assert not service.HasField("previous_spec")
    assert rollout == pb.Rollout(
        id="r-web-1",
        version=0,
        service_id="id-web",
        service_name="web",
        to_version=1,
    )


def test_what_is_given_is_kept() -> None:
    wanted = minimal()
    wanted.update.parallelism = 0  # all at once, when a policy is given
    wanted.update.deadline = 60
    wanted.task.drain_timeout = 0
    wanted.task.container.stop_grace = 0
    wanted.task.restart.delay = 0
    wanted.task.container.stop_signal = "int"
    wanted.task.container.cap_add.extend(["net_admin", "CAP_NET_ADMIN", "all"])
    wanted.task.container.probe.http.port = 80
    wanted.task.container.probe.retries = 7
    service = create(cluster(), wanted).service
    task = service.spec.task
    update = service.spec.update
    assert (update.parallelism, update.monitor, update.deadline) == (0, 5, 60)
    assert (task.drain_timeout, task.container.stop_grace, task.restart.delay) == (0, 0, 0)
    assert task.container.stop_signal == "SIGINT"
    assert list(task.container.cap_add) == ["CAP_NET_ADMIN", "ALL"]
    probe = task.container.probe
    assert (probe.http.path, probe.interval, probe.timeout, probe.retries) == ("/", 30, 30, 7)


def test_a_digest_in_the_reference_pins() -> None:
    digest = "sha256:" + "cd" * 32
    service, _, _ = create(cluster(), minimal(image=f"web:v1@{digest}"))
    assert (service.spec.task.container.image, service.spec.task.container.digest) == (
        "docker.io/library/web:v1",
        digest,
    )


def test_networks_by_name_or_prefix() -> None:
    wanted = minimal()
    wanted.task.networks.add(network_id="back", aliases=["www"])
    wanted.task.networks.add(network_id="net0")
    service, _, _ = create(cluster(), wanted)
    assert [(a.network_id, list(a.aliases)) for a in service.spec.task.networks] == [("net1", ["www"]), ("net0", [])]


def test_published_zero_picks_and_keeps_a_free_port() -> None:
    world = cluster()
    wanted = minimal("a")
    wanted.ports.add(target=80)
    wanted.ports.add(target=81, published=30001)
    wanted.ports.add(target=53, protocol=spec.PROTOCOL_UDP)
    service, _, _ = create(world, wanted)
    assert [p.published for p in service.spec.ports] == [30000, 30001, 30000]
    other = minimal("b")
    other.ports.add(target=80)
    assert create(world, other).service.spec.ports[0].published == 30002
    world.delete(service)
    again = updated(world.services["id-b"], lambda s: setattr(s.ports[0], "published", 0))
    admitted = admission.update_service(world, world.services["id-b"], again, "r", NOW)
    assert admitted.service.spec.ports[0].published == 30002, "though a lower one is free by now"


def test_an_exclusive_service_is_stop_first_by_nature() -> None:
    wanted = minimal()
    wanted.task.exclusive = True
    service, _, warnings = create(cluster(), wanted)
    assert service.spec.update.order == service.spec.rollback.order == spec.UPDATE_ORDER_STOP_FIRST
    assert warnings == []


def test_host_ports_are_copied_and_force_stop_first() -> None:
    wanted = minimal()
    wanted.ports.add(target=80, published=8080)
    wanted.ports.add(target=81, published=8081, mode=spec.PUBLISH_MODE_HOST)
    service, _, warnings = create(cluster(), wanted)
    assert [p.published for p in service.spec.task.host_ports] == [8081]
    assert service.spec.update.order == service.spec.rollback.order == spec.UPDATE_ORDER_STOP_FIRST
    assert warnings == ["order is stop-first because host port 8081 can be held by one task of a host only"]
    world = cluster()
    service, _, _ = create(world, wanted)
    assert admission.update_service(world, service, service.spec, "r", NOW).warnings == [], "it is said once"


def test_publishing_ssh_is_warned_of() -> None:
    wanted = minimal()
    wanted.ports.add(target=22, published=22)
    assert "SSH" in create(cluster(), wanted).warnings[0]


def _add_port(mode: spec.PublishMode.ValueType, published: int = 8080, udp: bool = False) -> Change:
    protocol = spec.PROTOCOL_UDP if udp else spec.PROTOCOL_TCP
    return lambda wanted: wanted.ports.add(target=80, published=published, mode=mode, protocol=protocol)


INGRESS, HOST = spec.PUBLISH_MODE_INGRESS, spec.PUBLISH_MODE_HOST


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (_add_port(INGRESS), _add_port(INGRESS), True),
        (_add_port(INGRESS), _add_port(HOST), True),
        (_add_port(HOST), _add_port(INGRESS), True),
        (_add_port(HOST), _add_port(HOST), False),
        (_add_port(INGRESS), _add_port(INGRESS, udp=True), False),
        (_add_port(INGRESS), _add_port(INGRESS, published=8081), False),
    ],
)
def test_ports_of_other_services(first: Change, second: Change, conflict: bool) -> None:
    world = cluster()
    one, other = minimal("one"), minimal("other")
    first(one)
    second(other)
    create(world, one)
    if not conflict:
        create(world, other)
        return
    with pytest.raises(AlreadyExists, match="Port 8080/tcp is published by service one already"):
        create(world, other)
    service = create(world, minimal("third")).service
    with pytest.raises(AlreadyExists, match="service one"):
        admission.update_service(world, service, updated(service, second), "r", NOW)


def test_ports_of_a_service_that_is_being_removed_are_still_taken() -> None:
    world = cluster()
    wanted = minimal("one")
    _add_port(INGRESS)(wanted)
    service = create(world, wanted).service
    world.put(admission.remove_service(service, NOW))
    other = minimal("other")
    _add_port(INGRESS)(other)
    with pytest.raises(AlreadyExists, match=r"service one \(which is being removed\)"):
        create(world, other)


def test_name_taken() -> None:
    world = cluster()
    service = create(world, minimal()).service
    with pytest.raises(AlreadyExists, match=r"A service web exists\."):
        create(world, minimal())
    world.put(admission.remove_service(service, NOW))
    with pytest.raises(AlreadyExists, match="A service web is still being removed"):
        create(world, minimal())


def test_update_keeps_the_previous_spec_and_raises_the_version() -> None:
    world = cluster()
    service = create(world, minimal()).service
    wanted = updated(service, lambda s: setattr(s.task.container, "image", "web:v2"))
    changed, rollout, _ = admission.update_service(world, service, wanted, "r2", NOW + 5, version=service.version)
    assert changed.previous_spec == service.spec
    assert changed.spec.task.container.image == "docker.io/library/web:v2"
    assert (changed.spec_version, changed.rollout_id, changed.updated_at) == (2, "r2", NOW + 5)
    assert changed.version == service.version, "so that the write is compared"
    assert (rollout.id, rollout.from_version, rollout.to_version, rollout.state) == (
        "r2",
        1,
        2,
        pb.ROLLOUT_STATE_RUNNING,
    )
    assert (rollout.started_at, rollout.deadline_at) == (0, 0), "of the leader's clock, not of who was asked"
    world.check_untouched()


def test_update_with_the_same_spec_still_makes_a_rollout() -> None:
    world = cluster()
    service = create(world, minimal()).service
    world.put(admission.scale(service, 2, "r2", NOW).service)
    service = world.services["id-web"]
    changed, rollout, _ = admission.update_service(world, service, service.spec, "r3", NOW)
    assert (changed.spec_version, changed.rollout_id) == (2, "r3")
    assert changed.previous_spec == service.previous_spec, "a rollback still leads to something else"
    assert (rollout.from_version, rollout.to_version) == (2, 2)


def test_the_name_may_be_left_out_of_an_update() -> None:
    world = cluster()
    service = create(world, minimal()).service
    wanted = updated(service, lambda s: setattr(s, "name", ""))
    assert admission.update_service(world, service, wanted, "r", NOW).service.spec.name == "web"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda s: setattr(s, "name", "other"), InvalidInput, "cannot be renamed to other"),
        (lambda s: setattr(s, "mode", spec.SERVICE_MODE_GLOBAL), InvalidInput, "The mode of service web"),
        (lambda s: s.task.networks.add(network_id="bakc"), NotFound, "no network 'bakc'. Did you mean back"),
    ],
)
def test_update_refuses(change: Change, error: type[PyswarmError], says: str) -> None:
    world = cluster()
    service = create(world, minimal()).service
    with pytest.raises(error, match=says):
        admission.update_service(world, service, updated(service, change), "r", NOW)


def test_update_of_an_old_version_conflicts() -> None:
    world = cluster()
    service = create(world, minimal()).service
    with pytest.raises(Conflict, match="was changed meanwhile"):
        admission.update_service(world, service, service.spec, "r", NOW, version=service.version + 1)


def test_a_service_that_is_being_removed_refuses_changes() -> None:
    world = cluster()
    service = world.put(admission.remove_service(create(world, minimal()).service, NOW + 1))
    assert service.removing
    assert admission.remove_service(service, NOW + 2) == service, "asking again changes nothing"
    for call in (
        lambda: admission.update_service(world, service, service.spec, "r", NOW),
        lambda: admission.scale(service, 3, "r", NOW),
        lambda: admission.rollback(world, service, "r", NOW),
    ):
        with pytest.raises(PreconditionFailed, match="is being removed"):
            call()


def test_scale() -> None:
    world = cluster()
    service = create(world, minimal()).service
    changed, rollout, _ = admission.scale(service, 5, "r2", NOW)
    assert (changed.spec.replicas, changed.spec_version, rollout.to_version) == (5, 2, 2)
    assert changed.previous_spec.replicas == 1
    for replicas, says in ((10_001, "at most 10000"), (10**12, "too many"), (-1, "0 or more")):
        with pytest.raises(InvalidInput, match=says):
            admission.scale(service, replicas, "r", NOW)


def test_scale_of_a_global_service_is_refused() -> None:
    wanted = minimal()
    wanted.mode, wanted.replicas = spec.SERVICE_MODE_GLOBAL, 0
    service = create(cluster(), wanted).service
    with pytest.raises(InvalidInput, match="is global"):
        admission.scale(service, 3, "r", NOW)


def test_scale_services_is_all_or_none() -> None:
    world = cluster()
    create(world, minimal("a"))
    create(world, minimal("b"))
    found = admission.scale_services(world, [("a", 2), ("id-b", 3)], ["r1", "r2"], NOW)
    assert [(a.service.spec.replicas, a.rollout.id) for a in found] == [(2, "r1"), (3, "r2")]
    with pytest.raises(NotFound):
        admission.scale_services(world, [("a", 2), ("c", 3)], ["r1", "r2"], NOW)
    with pytest.raises(InvalidInput, match="named twice"):
        admission.scale_services(world, [("a", 2), ("id-a", 3)], ["r1", "r2"], NOW)
    with pytest.raises(InvalidInput, match="No service is named"):
        admission.scale_services(world, [], [], NOW)


def test_rollback_swaps_and_twice_leads_back() -> None:
    world = cluster()
    service = create(world, minimal()).service
    with pytest.raises(PreconditionFailed, match="never changed"):
        admission.rollback(world, service, "r", NOW)
    service = world.put(admission.scale(service, 4, "r2", NOW).service)
    back, rollout, _ = admission.rollback(world, service, "r3", NOW)
    assert (back.spec.replicas, back.previous_spec.replicas, back.spec_version) == (1, 4, 3)
    assert (rollout.kind, rollout.from_version, rollout.to_version) == (pb.ROLLOUT_KIND_ROLLBACK, 2, 3)
    again = admission.rollback(world, world.put(back), "r4", NOW).service
    assert again.spec == service.spec


def test_rollback_to_what_is_gone_is_refused() -> None:
    world = cluster()
    wanted = minimal()
    wanted.task.networks.add(network_id="back")
    wanted.ports.add(target=80, published=8080)
    service = create(world, wanted).service

    def leave(s: spec.ServiceSpec) -> None:
        del s.task.networks[:]
        del s.ports[:]

    service = world.put(admission.update_service(world, service, updated(service, leave), "r", NOW).service)
    other = minimal("other")
    other.ports.add(target=80, published=8080)
    taker = create(world, other).service
    with pytest.raises(AlreadyExists, match="by service other"):
        admission.rollback(world, service, "r", NOW)
    world.delete(taker, world.networks["net1"])
    with pytest.raises(PreconditionFailed, match="needs network net1, which is gone"):
        admission.rollback(world, service, "r", NOW)
