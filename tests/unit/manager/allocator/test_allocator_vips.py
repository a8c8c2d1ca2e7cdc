from __future__ import annotations

from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import admit, default_network
from pyswarm_manager.allocator.service import missing_vips, plan

NOW = 1000.0


def cluster() -> FakeWorld:
    world = FakeWorld()
    world.put(default_network(world, "default", 1.0))
    world.put(admit(world, spec.NetworkSpec(name="back"), "back", 2.0))
    return world


def add(world: FakeWorld, service_id: str, networks: tuple[str, ...] = ("default",), at: float = NOW) -> pb.Service:
    task = build.task_spec()
    del task.networks[:]
    for network_id in networks:
        task.networks.add(network_id=network_id)
    service = build.service(build.service_spec(service_id, task=task), service_id=service_id)
    del service.vips[:]
    service.created_at = at
    world.put(service)
    return allocate(world, service_id)


def allocate(world: FakeWorld, service_id: str) -> pb.Service:
    world.apply(plan(world, service_id, NOW))
    assert not plan(world, service_id, NOW), "once is enough"
    return world.services[service_id]


def vips(service: pb.Service) -> dict[str, str]:
    return {vip.network_id: vip.address for vip in service.vips}


def change(world: FakeWorld, service_id: str, networks: tuple[str, ...]) -> pb.Service:
    service = pb.Service.FromString(world.services[service_id].SerializeToString())
    service.previous_spec.CopyFrom(service.spec)
    del service.spec.task.networks[:]
    for network_id in networks:
        service.spec.task.networks.add(network_id=network_id)
    return world.put(service)


def test_one_on_each_network_and_never_the_first_address() -> None:
    world = cluster()
    assert vips(add(world, "a", ("default", "back"))) == {"default": "10.128.0.1", "back": "10.129.0.1"}
    assert vips(add(world, "b", at=NOW + 1)) == {"default": "10.128.0.2"}


def test_an_address_that_has_just_gone_is_not_the_next() -> None:
    world = cluster()
    add(world, "a", at=NOW)
    add(world, "b", at=NOW + 1)
    world.delete(world.services["a"])
    assert vips(add(world, "c", at=NOW + 2)) == {"default": "10.128.0.3"}


def test_kept_while_attached() -> None:
    world = cluster()
    before = vips(add(world, "a"))
    change(world, "a", ("back", "default"))
    assert vips(allocate(world, "a")) == {"back": "10.129.0.1", **before}


def test_dnsrr_and_removing_and_unknown_get_none() -> None:
    world = cluster()
    service = build.service(build.service_spec("a"), service_id="a")
    del service.vips[:]
    service.spec.endpoint_mode = spec.ENDPOINT_MODE_DNSRR
    world.put(service)
    assert not plan(world, "a", NOW)
    assert missing_vips(world, world.services["a"]) == {}
    assert not plan(world, "nothing", NOW)
    service.spec.endpoint_mode = spec.ENDPOINT_MODE_VIP
    service.removing = True
    world.put(service)
    assert not plan(world, "a", NOW)


def test_freed_when_detached_but_not_before_nothing_may_go_back() -> None:
    world = cluster()
    service = add(world, "a", ("default", "back"))
    first = vips(service)
    old = build.task("t", service, node_id="n", state=pb.TASK_STATE_RUNNING, desired=pb.TASK_STATE_SHUTDOWN)
    service = pb.Service.FromString(service.SerializeToString())
    service.rollout_id = "r"
    rollout = pb.Rollout(id="r", service_id="a")
    world.put(service, old, rollout)
    change(world, "a", ("default",))
    assert vips(allocate(world, "a")) == first, "the rollout may go back"
    rollout.state = pb.ROLLOUT_STATE_COMPLETED
    world.put(rollout)
    assert vips(allocate(world, "a")) == first, "an old task still runs there"
    old.status.state = pb.TASK_STATE_SHUTDOWN
    world.put(old)
    assert vips(allocate(world, "a")) == {"default": first["default"]}


def test_full_range_is_noted_and_known() -> None:
    world = cluster()
    world.put(pb.Network(id="s", spec=spec.NetworkSpec(name="small", subnet="10.9.0.0/26"), vip_range="10.9.0.0/28"))
    given = [vips(add(world, f"s{n}", ("s",), at=float(n)))["s"] for n in range(15)]
    assert given == [f"10.9.0.{n}" for n in range(1, 16)]
    last = add(world, "last", ("s",), at=99.0)
    assert vips(last) == {}
    assert plan(world, "last", NOW).notes == ("last: no VIP: the range 10.9.0.0/28 of network small is used up",)
    assert plan(world, "last", NOW).wake_at == NOW + 10
    assert missing_vips(world, last) == {"s": False}
    world.delete(world.services["s3"])
    assert missing_vips(world, last) == {"s": True}
    assert vips(allocate(world, "last")) == {"s": "10.9.0.4"}


def test_what_was_given_and_is_not_seen_yet_is_not_given_again() -> None:
    world = cluster()
    add(world, "a", at=NOW)
    unseen = pb.Service(id="b", created_at=NOW + 1, vips=[pb.Vip(network_id="default", address="10.128.0.2")])
    service = build.service(build.service_spec("c"), service_id="c")
    del service.vips[:]
    world.put(service)
    world.apply(plan(world, "c", NOW, [unseen]))
    assert vips(world.services["c"]) == {"default": "10.128.0.3"}
