from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.errors import AlreadyExists, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import LAST_VNI, admit, default_network, parse_pool
from pyswarm_manager.allocator.nodes import HIGHEST, forget, number, underlay_conflict
from pyswarm_manager.allocator.ranges import layout, parse_range, to_int, to_text
from pyswarm_manager.plan import Plan


def add(world: FakeWorld, network_id: str, subnet: str = "", at: float = 1.0) -> pb.Network:
    return world.put(admit(world, spec.NetworkSpec(name=network_id, subnet=subnet), network_id, at))


def test_default_network() -> None:
    network = default_network(FakeWorld(), "id", 5.0)
    assert network == pb.Network(
        id="id",
        created_at=5.0,
        spec=spec.NetworkSpec(name="default", subnet="10.128.0.0/16"),
        vni=4097,
        vip_range="10.128.0.0/18",
    )


def test_default_network_keeps_off_the_underlay() -> None:
    world = FakeWorld()
    node = build.node("host-1")
    node.address = "10.128.3.4"
    world.put(node)
    assert default_network(world, "id", 5.0).spec.subnet == "10.129.0.0/16"


def test_picks_the_next_part_of_the_pool_and_a_new_vni() -> None:
    world = FakeWorld()
    assert [add(world, f"n{i}", at=float(i)).spec.subnet for i in range(3)] == [
        "10.128.0.0/16",
        "10.129.0.0/16",
        "10.130.0.0/16",
    ]
    assert [n.vni for n in world.networks.values()] == [4097, 4098, 4099]
    world.delete(world.networks["n1"])
    again = add(world, "n3", at=3.0)
    assert (again.spec.subnet, again.vni) == ("10.131.0.0/16", 4100), "what has just gone is not used at once"


def test_the_pool_wraps_and_its_end_is_explained() -> None:
    world = FakeWorld()
    for i in range(64):
        add(world, f"n{i}", at=float(i))
    with pytest.raises(PreconditionFailed, match=r"All 64 ranges of the address pool 10\.128\.0\.0/10 are in use"):
        add(world, "more", at=99.0)
    world.delete(world.networks["n5"])
    assert add(world, "more", at=99.0).spec.subnet == "10.133.0.0/16"


def test_vnis_wrap() -> None:
    world = FakeWorld()
    world.put(pb.Network(id="a", vni=LAST_VNI, spec=spec.NetworkSpec(subnet="10.1.0.0/16")))
    world.put(pb.Network(id="b", vni=4097, spec=spec.NetworkSpec(subnet="10.2.0.0/16")))
    assert add(world, "c").vni == 4098


@pytest.mark.parametrize(
    ("subnet", "error", "says"),
    [
        ("10.1.0.0", InvalidInput, "no prefix length"),
        ("10.1.0.1/16", InvalidInput, r"write 10\.1\.0\.0/16"),
        ("ten", InvalidInput, "not an IPv4 range"),
        ("fd00::/64", InvalidInput, "not an IPv4 range"),
        ("10.1.0.0/33", InvalidInput, "not an IPv4 range"),
        ("10.1.0.0/27", InvalidInput, "between a /8 and a /26"),
        ("0.0.0.0/0", InvalidInput, "between a /8 and a /26"),
        ("127.1.0.0/16", InvalidInput, "loopback"),
        ("169.254.0.0/16", InvalidInput, "link-local"),
        ("224.0.0.0/8", InvalidInput, "multicast"),
        ("10.128.0.0/10", AlreadyExists, r"overlaps network default \(10\.128\.0\.0/16\)"),
        ("10.128.4.0/24", AlreadyExists, "overlaps network default"),
        ("10.90.0.0/24", AlreadyExists, "overlaps the address 10.90.0.11 of node host-1"),
    ],
)
def test_refuses_subnets(subnet: str, error: type[Exception], says: str) -> None:
    world = FakeWorld()
    world.put(build.node("host-1"))
    world.put(default_network(world, "d", 1.0))
    with pytest.raises(error, match=says):
        add(world, "x", subnet)


@given(st.integers(0, 2**32 - 1))
def test_addresses_as_numbers(value: int) -> None:
    assert to_int(to_text(value)) == value


@given(st.integers(8, 26), st.integers(0, 2**32 - 1))
def test_layout_divides_every_subnet_without_overlap(prefix: int, base: int) -> None:
    subnet = IPv4Network((base >> (32 - prefix) << (32 - prefix), prefix))
    found = layout(str(subnet))
    vips = IPv4Network(found.vips.cidr)
    assert vips.prefixlen == prefix + 2
    assert vips.network_address == subnet.network_address
    assert found.block_count >= 12
    assert IPv4Network(found.block(0).cidr).prefixlen == max(24, prefix + 4)
    for index in (0, 1, found.block_count - 1):
        block = IPv4Network(found.block(index).cidr)
        assert block.subnet_of(subnet)
        assert not block.overlaps(vips)
        assert found.index_of(int(block.network_address)) == found.index_of(int(block.broadcast_address)) == index
    end = found.block(found.block_count - 1)
    assert end.first + end.size == int(subnet.broadcast_address) + 1


def test_node_numbers_are_never_used_again() -> None:
    world = FakeWorld()
    assert number(world) == 1
    world.put(default_network(world, "d", 1.0))
    for _ in range(3):
        value = number(world)
        world.put(build.node(f"host-{value}", number=value))
    assert number(world) == 4
    world.apply(Plan(steps=(forget(world, world.nodes["host-3"]),)))
    world.apply(Plan(steps=(forget(world, world.nodes["host-2"]),)))
    assert number(world) == 4
    world.put(build.node("last", number=HIGHEST))
    with pytest.raises(PreconditionFailed, match="no node can join"):
        number(world)


def test_node_numbers_of_blocks_count() -> None:
    world = FakeWorld()
    world.put(pb.Network(id="n", blocks=[pb.Block(node_id="gone", node_number=7, cidr="10.1.64.0/24")]))
    assert (number(world), number(world, 6), number(world, 9)) == (8, 8, 10)


def test_underlay_conflict() -> None:
    world = FakeWorld()
    world.put(default_network(world, "d", 1.0))
    assert underlay_conflict(world, "10.90.0.11") == ""
    assert "lies inside the range 10.128.0.0/16 of network default" in underlay_conflict(world, "10.128.0.9")


def test_parse_range_is_exact() -> None:
    assert parse_range("10.0.0.0/8").cidr == "10.0.0.0/8"
    assert to_int("10.255.255.255") in parse_range("10.0.0.0/8")
    assert to_int("11.0.0.0") not in parse_range("10.0.0.0/8")


def test_networks_come_from_the_clusters_own_pool() -> None:
    world = FakeWorld()
    pool = parse_pool("10.192.0.0/12")
    world.put(default_network(world, "d", 1.0, pool))
    assert world.networks["d"].spec.subnet == "10.192.0.0/16"
    assert admit(world, spec.NetworkSpec(name="b"), "b", 2.0, pool).spec.subnet == "10.193.0.0/16"


def test_a_small_pool_has_sixteen_networks() -> None:
    world = FakeWorld()
    pool = parse_pool("172.20.0.0/16")
    for index in range(16):
        network = admit(world, spec.NetworkSpec(name=f"n{index}"), f"n{index}", float(index), pool)
        assert network.spec.subnet == f"172.20.{16 * index}.0/20"
        world.put(network)
    with pytest.raises(PreconditionFailed, match="All 16 ranges of the address pool"):
        admit(world, spec.NetworkSpec(name="more"), "more", 20.0, pool)


@pytest.mark.parametrize("pool", ["10.0.0.0/7", "10.0.0.0/23", "127.0.0.0/8", "169.254.0.0/16", "10.0.0.1/16", "ten"])
def test_what_is_no_pool(pool: str) -> None:
    with pytest.raises(InvalidInput):
        parse_pool(pool)
