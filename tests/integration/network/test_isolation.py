"""What must not get through. Each attempt has a twin that does, so that a test cannot pass because nothing works."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pyswarm_agent.network.inputs import GATEWAY
from pyswarm_agent.network.links import HOST_MAC, container_mac
from pyswarm_proxy.state import vtep_mac
from tests.integration.network.bed import CLIENT, Bed, Server
from tests.integration.network.load import eventually
from tests.integration.network.packets import frame, send_frame, send_udp, udp_packet, vxlan

VIP_A, VIP_B = "10.200.0.10", "10.201.0.10"
REFUSALS = {"refused", "unreachable", "timeout"}


@pytest.fixture
async def two_networks(bed: Bed) -> Bed:
    """weba, otherwise weba2, in neta; webb in netb; none of netb is published."""
    await bed.task("weba", 1, service="a")
    await bed.task("weba2", 2, service="a")
    await bed.task("webb", 1, service="b", networks=("netb",))
    await bed.task("webb2", 2, service="b", networks=("netb",), last=7)
    bed.service("a", bed.endpoint("weba"), bed.endpoint("weba2"), vip=VIP_A, published=8080)
    bed.service("b", bed.endpoint("webb"), bed.endpoint("webb2"), vip=VIP_B, network="netb", published=8081)
    await bed.apply()
    return bed


async def test_networks_do_not_reach_each_other(two_networks: Bed) -> None:
    bed = two_networks
    for proto in ("tcp", "udp"):
        for name in ("weba", "weba2"):
            mine, theirs = [(VIP_A, "neta"), ("weba", "neta"), ("weba2", "neta")], [VIP_B, "webb", "webb2"]
            for target, network in mine:
                if target != name:  # a packet to itself never leaves the container
                    address = target if target == VIP_A else bed.address(target, network)
                    got = await bed.containers[name].outcome(address, 80, proto=proto)
                    assert got.startswith("weba"), (proto, name, target, got)
            for target in theirs:
                address = target if target == VIP_B else bed.address(target, "netb")
                got = await bed.containers[name].outcome(address, 80, proto=proto, timeout=0.4)
                assert got in REFUSALS, (proto, name, target, got)
    # what a service publishes is for everybody, other networks included
    assert (await bed.containers["weba"].outcome("10.90.0.11", 8081)).startswith("webb")
    assert (await bed.containers["weba"].outcome("10.90.0.12", 8081)).startswith("webb")


async def test_a_task_in_two_networks_reaches_both_by_its_address_there(two_networks: Bed) -> None:
    bed = two_networks
    both = await bed.task("both", 1, networks=("neta", "netb"), last=9)
    await bed.apply()
    assert (await both.outcome(VIP_A, 80)).split()[1] == bed.address("both", "neta")
    assert (await both.outcome(VIP_B, 80)).split()[1] == bed.address("both", "netb")
    assert (await bed.containers["webb2"].outcome(bed.address("both", "netb"), 80)).startswith("both")
    assert await bed.containers["webb2"].outcome(bed.address("both", "neta"), 80, timeout=0.4) in REFUSALS


async def test_outsiders_reach_published_ports_alone(two_networks: Bed) -> None:
    bed = two_networks
    bed.client.exec("ip", "route", "add", "10.200.0.0/15", "via", "10.90.0.11")
    assert (await bed.client.outcome("10.90.0.11", 8080)).startswith("weba")
    for address in (VIP_A, bed.address("weba"), bed.address("weba2"), "10.200.65.0"):
        for proto in ("tcp", "udp"):
            got = await bed.client.outcome(address, 80, proto=proto, timeout=0.4)
            assert got in REFUSALS, (address, proto, got)
    bed.tasks["weba"].leaving = True  # the redirect of a leaving task is no door either
    bed.service("a", bed.endpoint("weba2"), bed.endpoint("weba", leaving=True), vip=VIP_A, published=8080)
    await bed.apply()
    assert await bed.client.outcome(bed.address("weba"), 80, timeout=0.4) in REFUSALS


async def test_host_services_are_closed_to_containers(two_networks: Bed) -> None:
    bed = two_networks
    for number in (1, 2):
        for port in (9999, 53):
            server = Server(f"host{number}")
            address = GATEWAY if (number, port) == (1, 53) else "0.0.0.0"  # where the agent's DNS listens
            await server.start(bed.host(number), address, port)
            bed.servers[f"host{number}:{port}"] = server
    inside = bed.containers["weba"]
    assert (await bed.client.outcome("10.90.0.11", 9999)).startswith("host1")
    for proto in ("tcp", "udp"):
        for address in ("10.90.0.11", "10.90.0.12", "10.200.65.0", "10.200.66.0", GATEWAY):
            got = await inside.outcome(address, 9999, proto=proto, timeout=0.4)
            assert got in REFUSALS, (proto, address, got)
        assert (await inside.outcome(GATEWAY, 53, proto=proto)).startswith("host1")  # DNS
        assert await inside.outcome("10.90.0.12", 53, proto=proto, timeout=0.4) in REFUSALS
    assert await inside.ping(GATEWAY)
    assert await inside.ping("10.200.0.10")  # a VIP
    assert not await inside.ping("10.90.0.12")


@pytest.mark.parametrize("setting", ["", "rp_filter=1", "rp_filter=2", "src_valid_mark=1"])
async def test_forged_sources_and_loopback_are_dropped(two_networks: Bed, setting: str) -> None:
    bed = two_networks
    if setting:
        name, value = setting.split("=")
        for host in bed.hosts:
            host.exec("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/all/{name}")

        async def noticed() -> bool:
            for host in bed.hosts:
                table = host.exec("nft", "list", "table", "ip", "pyswarm")
                if ("fib saddr . iif" in table) != (setting == "rp_filter=2"):
                    return False
                if ("meta mark set 0x7c000000" in table) != (name == "rp_filter"):
                    return False
                if ("7900:" in host.exec("ip", "rule")) != (name == "rp_filter"):
                    return False
            return True

        await eventually(noticed, 20)
    target, seen = bed.address("weba2"), bed.servers["weba2"].seen
    attacker = bed.containers["weba"]

    def send(source: str, destination: str, port: int = 80) -> None:
        packet = udp_packet(source, destination, port, b"forged")
        send_frame(attacker, "eth0", frame(HOST_MAC, container_mac(bed.address("weba")), packet))

    local = Server("local")
    await local.start(bed.host(1), "127.0.0.1", 9998)
    bed.servers["local"] = local
    assert (await bed.host(1).outcome("127.0.0.1", 9998, proto="udp")).startswith("local")
    local.seen.clear()
    for source in (
        "10.200.65.99",
        "10.200.66.5",
        "10.201.65.5",
        "10.90.0.12",
        "10.90.0.11",
        CLIENT,
        "8.8.8.8",
        "127.0.0.1",
    ):
        send(source, target)
    send(bed.address("weba"), "127.0.0.1", 9998)
    send("127.0.0.1", "127.0.0.1", 9998)
    send(bed.address("weba"), target)  # the twin: honest, and last, so that the others have had their time

    async def arrived() -> bool:
        return bed.address("weba") in seen

    await eventually(arrived)
    assert set(seen) == {bed.address("weba")}
    assert local.seen == []


async def test_forged_vxlan_frames_are_dropped(two_networks: Bed) -> None:
    bed = two_networks
    seen = bed.servers["weba"].seen
    target = bed.address("weba")

    def forged(source: str, *, sender: str = vtep_mac(2), vni: int = 4201, to: str = target) -> bytes:
        return vxlan(vni, frame(vtep_mac(1), sender, udp_packet(source, to, 80, b"forged")))

    for attacker in (bed.containers["weba2"], bed.containers["webb"], bed.client):
        for address in ("10.90.0.11", "10.200.65.0", "10.201.65.0", GATEWAY):
            with contextlib.suppress(OSError):
                send_udp(attacker, address, 4789, forged("10.200.66.77"))
    send_udp(bed.host(2), "10.90.0.11", 4789, forged("10.200.66.78", sender="02:79:00:01:00:99"))  # nobody's MAC
    send_udp(bed.host(2), "10.90.0.11", 4789, forged("10.200.66.79", vni=4202))  # into another network
    send_udp(bed.host(2), "10.90.0.11", 4789, forged("10.200.66.80"))  # the twin: a node may

    async def arrived() -> bool:
        return "10.200.66.80" in seen

    await eventually(arrived)
    await asyncio.sleep(0.05)
    assert set(seen) == {"10.200.66.80"}


async def test_containers_reach_the_world_from_their_hosts_address(two_networks: Bed) -> None:
    bed = two_networks
    world = Server("world")
    await world.start(bed.client, CLIENT, 7000)
    bed.servers["world"] = world
    for name, address in (("weba", "10.90.0.11"), ("weba2", "10.90.0.12"), ("webb", "10.90.0.11")):
        assert await bed.containers[name].outcome(CLIENT, 7000) == f"world {address}"
        assert (await bed.containers[name].outcome(CLIENT, 7000, proto="udp")).startswith(f"world {address}")


async def test_nothing_of_a_network_leaks_out_of_the_host(two_networks: Bed) -> None:
    """An address that nobody has, of a block or of none, is refused on the spot."""
    bed = two_networks
    for address in ("10.200.65.200", "10.200.99.1", "10.200.0.77"):
        assert await bed.containers["weba"].outcome(address, 80, timeout=1) in {"refused", "unreachable"}
        assert await bed.host(1).outcome(address, 80, timeout=1) in {"refused", "unreachable"}
