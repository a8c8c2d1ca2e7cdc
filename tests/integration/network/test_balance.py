"""How connections fall on tasks: weights, affinity, the host's own ports, counters, changes of the host's world."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from tests.integration.network.bed import CLIENT, Bed, Place

VIP = "10.200.0.10"


async def _fall(place: Place, address: str, port: int, times: int, **kwargs: str) -> Counter[str]:
    answers = [await place.ask(address, port, **kwargs) for _ in range(times)]
    return Counter(answer.split()[0] for answer in answers)


async def test_weights_are_slots(bed: Bed) -> None:
    for name, number in (("web1", 1), ("web2", 2), ("web3", 3)):
        await bed.task(name, number, service="web")
    weights = {"web1": 1, "web2": 2, "web3": 5}
    bed.service("web", *(bed.endpoint(n, weight=w) for n, w in weights.items()), vip=VIP, published=8080)
    await bed.apply()
    # exact in the kernel: 8 slots of the same size
    listing = bed.host(1).exec("nft", "list", "map", "ip", "pyswarm", "backends")
    for name, weight in weights.items():
        assert listing.count(f": {bed.address(name)}") == weight
    assert "goto v8" in bed.host(1).exec("nft", "list", "map", "ip", "pyswarm", "vips")
    fell = await _fall(bed.client, "10.90.0.11", 8080, 800)
    for name, weight in weights.items():  # five standard deviations
        expected = 800 * weight / 8
        assert abs(fell[name] - expected) < 5 * (expected * (1 - weight / 8)) ** 0.5, fell


async def test_with_affinity_a_client_stays_with_a_task_by_whichever_host_it_comes(bed: Bed) -> None:
    for name, number in (("web1", 1), ("web2", 2), ("web3", 3)):
        await bed.task(name, number, service="web")
    bed.service("web", *(bed.endpoint(n) for n in ("web1", "web2", "web3")), vip=VIP, published=8080, affinity=True)
    addresses = [f"10.90.0.{last}" for last in range(101, 131)]
    for address in addresses:
        bed.client.exec("ip", "addr", "add", f"{address}/24", "dev", "eth0")
    await bed.apply()
    chosen = Counter[str]()
    for source in addresses:
        seen = set()
        for host in bed.hosts:
            seen |= set(await _fall(bed.client, host.address, 8080, 2, source=source))
        assert len(seen) == 1, source
        chosen[seen.pop()] += 1
    assert len(chosen) == 3
    assert max(chosen.values()) < 25


async def test_a_port_in_host_mode_is_on_its_host_alone(bed: Bed) -> None:
    port = spec.Port(target=80, published=9090, mode=spec.PUBLISH_MODE_HOST)
    await bed.task("web1", 1, service="web", host_ports=(port,))
    bed.service("web", bed.endpoint("web1"), vip=VIP)
    await bed.apply()
    assert await bed.client.outcome("10.90.0.11", 9090) == f"web1 {CLIENT}"
    assert (await bed.host(1).outcome("127.0.0.1", 9090)).startswith("web1")
    assert await bed.client.outcome("10.90.0.12", 9090) == "refused"
    assert await bed.client.outcome("10.90.0.11", 9090, proto="udp") == "refused"
    # stop-first: the old one leaves, the new one is not healthy yet, and clients wait
    bed.tasks["web1"].leaving = True
    bed.service("web", bed.endpoint("web1", leaving=True), vip=VIP, hold=True)
    await bed.task("web9", 1, service="web", last=9, host_ports=(port,))
    bed.tasks["web9"].status.state = pb.TASK_STATE_STARTING
    await bed.apply()
    waiting = asyncio.create_task(bed.client.ask("10.90.0.11", 9090, timeout=5))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    bed.tasks["web9"].status.state = pb.TASK_STATE_RUNNING
    await bed.apply()
    assert (await waiting) == f"web9 {CLIENT}"


async def test_traffic_is_counted_by_task_and_service(bed: Bed) -> None:
    await bed.task("web1", 1, service="web")
    await bed.task("web2", 2, service="web")
    bed.service("web", bed.endpoint("web1"), bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()
    fell = await _fall(bed.client, "10.90.0.11", 8080, 40)
    for number in (1, 2):
        name = f"web{number}"
        by_task, by_service = await bed.host(number).do(bed.host(number).network.counters())
        traffic = by_task[bed.tasks[name].id]
        assert traffic.connections == fell[name]
        assert traffic.bytes_in >= fell[name] * (52 + 58)  # of what followed the SYN: an ACK, and a request
        assert traffic.bytes_out >= fell[name] * 60
        assert traffic.resets == 0
        assert by_service["web"] == traffic
    # a task that goes leaves its share with the service; a repair by reload loses nothing
    plane = bed.host(1).network._balancer._plane
    plane._loaded = False
    await bed.host(1).do(bed.host(1).network._balancer.ensure())
    del bed.tasks["web1"]
    bed.service("web", bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()
    by_task, by_service = await bed.host(1).do(bed.host(1).network.counters())
    assert by_task == {}
    assert by_service["web"].connections == fell["web1"]


async def test_resets_are_counted(bed: Bed) -> None:
    await bed.task("web1", 1, service="web")
    bed.service("web", bed.endpoint("web1"), vip=VIP, published=8080)
    await bed.apply()
    sock = bed.client.tcp_socket()
    await asyncio.get_running_loop().sock_connect(sock, ("10.90.0.12", 8080))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"x\n")
    await reader.readline()
    bed.servers["web1"].stop()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    by_task, _ = await bed.host(1).do(bed.host(1).network.counters())
    assert by_task[bed.tasks["web1"].id].resets == 1


async def test_a_host_without_a_block_is_an_entry_too(bed: Bed) -> None:
    """No task of the network has ever been there: it has no overlay address of its own."""
    del bed.networks["neta"].blocks[2]
    await bed.task("web1", 1, service="web")
    await bed.task("other", 3, networks=("netb",))
    bed.service("web", bed.endpoint("web1"), vip=VIP, published=8080)
    await bed.apply()
    third = bed.host(3)
    assert await bed.client.outcome(third.address, 8080) == f"web1 {CLIENT}"
    assert await bed.client.outcome(third.address, 8080, proto="udp") == f"web1 {CLIENT} 6"
    for proto in ("tcp", "udp"):
        for address, port in ((VIP, 80), ("127.0.0.1", 8080), (third.address, 8080)):
            got = await third.outcome(address, port, proto=proto)
            assert got.startswith(f"web1 {third.address}"), (proto, address, got)
    assert (await bed.containers["other"].outcome(third.address, 8080)) == f"web1 {bed.address('other', 'netb')}"


async def test_networks_and_nodes_come_and_go(bed: Bed) -> None:
    neta = bed.networks.pop("neta")
    await bed.task("webb", 1, service="b", networks=("netb",))
    bed.service("b", bed.endpoint("webb"), vip="10.201.0.9", network="netb", published=8081)
    third = bed.hosts.pop()
    await bed.apply()
    assert "psx4201" not in bed.host(1).exec("ip", "-o", "link")
    assert await bed.client.outcome("10.90.0.12", 8081) == f"webb {CLIENT}"
    bed.networks["neta"] = neta
    bed.hosts.append(third)
    await bed.apply()
    await bed.task("weba", 3, service="a")
    bed.service("a", bed.endpoint("weba"), vip=VIP, published=8080)
    await bed.apply()
    for host in bed.hosts:
        assert await bed.client.outcome(host.address, 8080) == f"weba {CLIENT}"
        assert await bed.client.outcome(host.address, 8081) == f"webb {CLIENT}"
    await third.do(third.network.links.detach(bed.tasks["weba"].id))
    del bed.networks["neta"], bed.services["a"], bed.tasks["weba"]
    await bed.apply()
    for host in bed.hosts:
        text = host.exec("nft", "list", "ruleset") + host.exec("ip", "route", "show", "table", "all")
        lasting = [line for line in text.splitlines() if " expires " not in line]
        assert "10.200." not in "\n".join(lasting)
        assert "psx4201" not in text + host.exec("ip", "-o", "link")
        assert await bed.client.outcome(host.address, 8081) == f"webb {CLIENT}"


async def test_a_port_moves_from_one_service_to_another(bed: Bed) -> None:
    await bed.task("old", 1, service="zz")
    await bed.task("new", 2, service="aa")
    bed.service("zz", bed.endpoint("old"), published=8080)
    await bed.apply()
    bed.service("aa", bed.endpoint("new"), published=8080)  # for a moment both have it
    await bed.apply()
    assert (await bed.client.outcome("10.90.0.11", 8080)).startswith("new")
    del bed.services["aa"]
    await bed.apply()
    assert (await bed.client.outcome("10.90.0.11", 8080)).startswith("old")
    bed.service("aa", bed.endpoint("new"), published=8080)
    del bed.services["zz"]
    await bed.apply()
    assert (await bed.client.outcome("10.90.0.11", 8080)).startswith("new")
