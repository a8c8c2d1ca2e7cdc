"""Everything in the kernel is derived: what others remove comes back, what is theirs stays, and a purge leaves
nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from pyswarm_agent.network import namespaces
from tests.integration.network.bed import CLIENT, Bed, Host
from tests.integration.network.load import eventually, load

VIP = "10.200.0.10"


async def _web(bed: Bed) -> None:
    await bed.task("web1", 1, service="web")
    await bed.task("web2", 2, service="web")
    await bed.task("idle1", 1, last=6, serve=False)
    bed.service("web", bed.endpoint("web1"), bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()


async def _answers_from_both(bed: Bed) -> bool:
    """By VIP, published port and localhost, from both hosts: all rules and routes are needed for it."""
    for place, address, port in (
        (bed.containers["idle1"], VIP, 80),
        (bed.client, "10.90.0.11", 8080),
        (bed.host(1), "127.0.0.1", 8080),
        (bed.host(2), VIP, 80),
    ):
        seen = set()
        for _ in range(24):
            answer = await place.outcome(address, port, timeout=2)
            if not answer.startswith("web"):
                return False
            seen.add(answer.split()[0])
        if seen != {"web1", "web2"}:
            return False
    return True


DAMAGE = [
    "nft flush ruleset",
    "nft delete table ip pyswarm",
    "nft flush map ip pyswarm backends",
    "nft flush map ip pyswarm vips",
    "nft flush chain ip pyswarm nat_pre",
    "nft flush set ip pyswarm ranges",
    "ip link del psx4201",
    "ip link set psx4201 down",
    "ip link set psx4201 mtu 1000",
    "ip route flush proto 121",
    "ip route flush table all proto 121",
    "ip route del 240.105.0.2",
    "ip addr del 169.254.1.1/32 dev lo",
    "ip addr flush dev psx4201",
    "ip neigh flush nud permanent dev psx4201",
    "bridge fdb del 02:79:00:01:00:02 dev psx4201 dst 10.90.0.12",
    "sysctl -qw net.ipv4.conf.psx4201.accept_local=0",
    "sysctl -qw net.ipv4.conf.all.rp_filter=1",
]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_others_remove_is_back_within_seconds(bed: Bed, damage: str) -> None:
    await _web(bed)
    assert await _answers_from_both(bed)
    before = _mine(bed.host(1))
    bed.host(1).exec(*damage.split())

    async def mended() -> bool:
        return _mine(bed.host(1)) == before

    if "rp_filter" in damage:
        await asyncio.sleep(1)
    else:
        await eventually(mended, 20)
    assert await _answers_from_both(bed)


def _mine(host: Host) -> list[str]:
    """What is in the kernel, without counters and what ages."""
    rules = json.loads(host.exec("nft", "-j", "list", "ruleset"))["nftables"]
    text = [
        json.dumps(_still(item), sort_keys=True)
        for item in rules
        if "metainfo" not in item and "listening" not in json.dumps(item.get("set", {}))
    ]
    for argv in (
        "ip -j rule",
        "ip -j route show table all proto 121",
        "ip -j addr show dev lo",
        "ip -j link show type vxlan",
        "ip -j neigh show nud permanent",
        "bridge -j fdb show dev psx4201",
    ):
        items = json.loads(host.exec(*argv.split(), check=False) or "[]")
        text += [json.dumps(_still(item), sort_keys=True) for item in items]
    return sorted(text)


def _still(item: object) -> object:
    """Without numbers that the kernel gives, and counts."""
    volatile = {"handle", "ifindex", "packets", "bytes", "expires", "index", "link_netnsid", "valid_life_time"}
    if isinstance(item, dict):
        return {k: _still(v) for k, v in item.items() if k not in volatile}
    if isinstance(item, list):
        return sorted((_still(v) for v in item), key=lambda v: json.dumps(v, sort_keys=True)) if item else item
    return item


async def test_a_reload_cuts_no_connection_and_loses_no_request(bed: Bed) -> None:
    await _web(bed)
    sock = bed.client.tcp_socket()
    await asyncio.get_running_loop().sock_connect(sock, ("10.90.0.11", 8080))
    reader, writer = await asyncio.open_connection(sock=sock)
    ways = [(bed.client, "10.90.0.11", 8080), (bed.containers["idle1"], VIP, 80)]
    async with load(*ways) as running:
        for _ in range(10):
            bed.host(1).network._balancer._plane._loaded = False  # as after a drift
            await bed.host(1).do(bed.host(1).network._balancer.ensure())
            await running.until(50)
            writer.write(b"x" * 200 + b"\n")
            assert await reader.readline() == b"x" * 200 + b"\n"
    writer.close()
    assert running.failures == []
    assert running.slowest < 8  # nobody hung


async def test_other_peoples_tables_links_and_rules_are_never_touched(bed: Bed) -> None:
    host = bed.host(1)
    host.exec("nft", "add table ip theirs; add chain ip theirs c { type filter hook forward priority 5; }")
    host.exec("nft", "add table inet firewall; add set inet firewall s { type ipv4_addr; elements = { 10.200.0.10 } }")
    host.exec("ip", "link", "add", "vxother", "type", "vxlan", "id", "77", "dstport", "8472", "local", host.address)
    host.exec("ip", "link", "set", "vxother", "up")
    host.exec("ip", "rule", "add", "fwmark", "0x10", "lookup", "100", "pref", "7901")
    host.exec("ip", "route", "add", "10.77.0.0/16", "dev", "vxother")
    host.exec("ip", "route", "add", "10.200.66.0/24", "dev", "vxother", "metric", "5000")
    host.exec("ip", "route", "add", "unreachable", "10.78.0.0/16", "table", "100")
    host.exec("bridge", "fdb", "append", "02:00:00:00:00:99", "dev", "vxother", "dst", "10.90.0.12")
    host.exec("ip", "addr", "add", "169.254.7.7/32", "dev", "lo")

    def theirs() -> str:
        return "\n".join(
            host.exec(*argv.split(), check=False).replace(" tentative", "")
            for argv in (
                "nft list table ip theirs",
                "nft list table inet firewall",
                "ip -o link show vxother",
                "ip rule show pref 7901",
                "ip rule show table local",
                "ip route show dev vxother",
                "ip route show table 100",
                "bridge fdb show dev vxother",
                "ip -o addr show dev eth0",
                "ip -o addr show to 169.254.7.7",
            )
        )

    before = theirs()
    assert "theirs" in before and "vxother" in before and "169.254.7.7" in before
    await _web(bed)
    assert theirs() == before
    host.exec("nft", "delete table ip pyswarm")
    host.exec("ip", "link", "del", "psx4201")

    async def mended() -> bool:
        return await _answers_from_both(bed)

    await eventually(mended)
    assert theirs() == before
    await host.do(host.network.purge())
    assert theirs() == before


async def test_a_restart_of_the_agent_leaves_traffic_alone(bed: Bed) -> None:
    await _web(bed)
    before = _mine(bed.host(1))
    ways = [(bed.client, "10.90.0.11", 8080), (bed.containers["idle1"], VIP, 80), (bed.host(1), VIP, 80)]
    async with load(*ways) as running:
        await running.until(50)
        await asyncio.to_thread(bed.host(1).restart)
        assert _mine(bed.host(1)) == before
        await running.until(50)
        await bed.apply(bed.host(1))
        await running.until(50)
        link = await bed.host(1).do(bed.host(1).network.links.attach(bed.tasks["web1"].id, [bed.address("web1")], {}))
        assert link.name == bed.tasks["web1"].id
        await running.until(50)
    assert running.failures == []
    assert _mine(bed.host(1)) == before


async def test_a_purge_leaves_nothing(bed: Bed) -> None:
    host = bed.host(1)

    def everything() -> str:
        kinds = (
            "nft list ruleset",
            "ip -o link",
            "ip -4 route show table all",  # an IPv6 address of its own comes to each link in its time
            "ip rule",
            "ip -4 -o addr",
            "ip neigh show nud permanent",
        )
        return "\n".join(host.exec(*argv.split()) for argv in kinds).replace(" UNKNOWN", "")

    before = everything()
    await _web(bed)
    await bed.client.ask("10.90.0.11", 8080)
    assert everything() != before
    await host.do(host.network.purge())
    assert everything() == before
    assert list(host.run_dir.iterdir()) == []
    # and it can begin again
    await bed.task("web1", 1, service="web")
    await host.apply()
    assert (await bed.client.ask("10.90.0.11", 8080)).startswith("web")


async def test_a_task_that_was_stopped_leaves_no_trace(bed: Bed) -> None:
    await _web(bed)
    host, task, address = bed.host(1), bed.tasks["web1"].id, bed.address("web1")
    for _ in range(10):
        await bed.client.ask("10.90.0.12", 8080)
        await bed.client.ask("10.90.0.11", 8080)
    assert address in host.exec("conntrack", "-L")
    bed.tasks["web1"].leaving = True
    bed.service("web", bed.endpoint("web2"), bed.endpoint("web1", leaving=True), vip=VIP, published=8080)
    await bed.apply()
    bed.servers["web1"].stop()
    await host.do(host.network.links.detach(task))
    del bed.tasks["web1"]
    bed.service("web", bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()
    kinds = ("nft list ruleset", "ip route show table all", "ip neigh show nud permanent", "conntrack -L", "ip -o link")

    async def traces() -> list[str]:  # the ruleset remembers for LISTENING_SECONDS who answered
        return [argv for argv in kinds if address in host.exec(*argv.split())]

    async def gone() -> bool:
        return not await traces()

    assert set(await traces()) <= {"nft list ruleset", "conntrack -L"}
    await eventually(gone, 20)
    assert task[:12] not in host.exec("ip", "-o", "link")
    assert not host.network.links.path(task).exists()
    assert (await bed.client.ask("10.90.0.11", 8080)) == f"web2 {CLIENT}"


async def test_a_link_whose_namespace_is_no_longer_pinned_is_still_known_and_removed(bed: Bed) -> None:
    """As after a crash between the two steps of a removal; something else still holds the namespace."""
    await bed.task("web1", 1, service="web")
    host, task = bed.host(1), bed.tasks["web1"].id
    assert await host.do(host.network.links.attached()) == [task]

    async def unpin() -> None:
        namespaces.unpin(host.network.links.path(task))

    await host.do(unpin())
    assert await host.do(host.network.links.attached()) == [task]
    await host.do(host.network.links.detach(task))
    assert await host.do(host.network.links.attached()) == []
    assert "psc" not in host.exec("ip", "-o", "link")


async def test_a_foreign_firewall_that_drops_is_named(bed: Bed) -> None:
    host = bed.host(1)
    await _web(bed)
    host.exec(
        "nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    )
    host.exec("nft", "flush chain ip pyswarm back")  # a change of ours makes it look

    async def warned() -> bool:
        return any("ip filter FORWARD" in sentence for sentence in host.network.warnings())

    await eventually(warned)


async def test_links_that_come_and_go_are_no_strangers_work(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever looks at the kernel sees half-made links all the time; that is neither an error nor to be repaired."""
    await _web(bed)
    host = bed.host(1)
    names = [f"t{n}" for n in range(6)]
    caplog.set_level("WARNING")

    async def come_and_go(number: int, name: str) -> None:
        for _ in range(12):
            await bed.task(name, 1, last=20 + number, serve=False)
            await host.apply()
            await host.do(host.network.links.detach(bed.tasks[name].id))
            del bed.tasks[name]

    async def look() -> None:
        while True:
            host.loop.call_soon_threadsafe(host.network._host.changed.set)  # as if somebody had changed something
            await host.apply()
            await host.do(host.network._repair())

    looking = asyncio.create_task(look())
    await asyncio.gather(*(come_and_go(number, name) for number, name in enumerate(names)))
    assert not looking.done()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert [r.getMessage() for r in caplog.records if "network" in r.name] == []
    assert await _answers_from_both(bed)
