"""Every way to a service, in TCP and UDP, with the client's address as the server sees it."""

from __future__ import annotations

import pytest

from pyswarm_agent.network.inputs import GATEWAY
from tests.integration.network.bed import CLIENT, Bed, Place

FAR = "10.92.0.2"
VIP = "10.200.0.{}"


async def _three_services(bed: Bed) -> None:
    """web1…web3, each a service of one task on the host of its number; idle1…idle3 are clients in containers there."""
    for number in (1, 2, 3):
        await bed.task(f"web{number}", number, service=f"s{number}")
        await bed.task(f"idle{number}", number, last=6, serve=False)
        bed.service(f"s{number}", bed.endpoint(f"web{number}"), vip=VIP.format(10 + number), published=8000 + number)
    await bed.apply()


def _paths(bed: Bed) -> list[tuple[str, Place, str, int, str, str]]:
    """(what, from, address, port, server, the client's address that it should see)."""
    paths: list[tuple[str, Place, str, int, str, str]] = []
    for number in (1, 2, 3):
        web, published, vip = f"web{number}", 8000 + number, VIP.format(10 + number)
        for at in (1, 2, 3):
            host, idle = bed.host(at), bed.containers[f"idle{at}"]
            where = "same host" if at == number else "other host"
            own = f"10.200.{64 + at}.0"
            paths += [
                (f"client → published of host {at}, {where}", bed.client, host.address, published, web, CLIENT),
                (f"container → VIP, {where}", idle, vip, 80, web, bed.address(idle.name)),
                (
                    f"container → own host's published, {where}",
                    idle,
                    host.address,
                    published,
                    web,
                    bed.address(idle.name),
                ),
                (f"host → VIP, {where}", host, vip, 80, web, own),
                (f"host → localhost, {where}", host, "127.0.0.1", published, web, GATEWAY if at == number else own),
            ]
            for entry in (1, 2, 3):
                other = bed.host(entry)
                seen = host.address
                name = f"host {at} → published of host {entry}, task on {number}"
                paths.append((name, host, other.address, published, web, seen))
                if entry != at:
                    name = f"container on {at} → published of host {entry}, task on {number}"
                    paths.append((name, idle, other.address, published, web, bed.address(idle.name)))
        itself = bed.containers[web]
        paths += [
            ("task → its own VIP", itself, vip, 80, web, GATEWAY),
            ("task → its own published port", itself, bed.host(number).address, published, web, GATEWAY),
        ]
    return paths


@pytest.mark.parametrize("setting", ["", "rp_filter=1", "rp_filter=2", "src_valid_mark=1"])
async def test_every_path_arrives_with_the_clients_address(bed: Bed, setting: str) -> None:
    """On a host as it is, and where an administrator has set something for all devices."""
    if setting:
        name, value = setting.split("=")
        for host in bed.hosts:
            host.exec("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/all/{name}")
    # a client that the hosts know no way to, but for the one that it comes by
    bed.client.exec("ip", "addr", "add", FAR, "dev", "lo")
    bed.host(1).exec("ip", "route", "add", FAR, "via", CLIENT)
    await _three_services(bed)
    wrong = []
    for number in (1, 2, 3):
        got = await bed.client.ask("10.90.0.11", 8000 + number, source=FAR)
        if got != f"web{number} {FAR}":
            wrong.append(f"far client: {got}")
    for what, place, address, port, server, seen in _paths(bed):
        for proto in ("tcp", "udp"):
            got = await bed_outcome(place, address, port, proto)
            if got.split()[:2] != [server, seen]:
                wrong.append(f"{proto} {what}: {got!r} instead of {server} {seen}")
    assert not wrong, "\n".join(wrong)


async def bed_outcome(place: Place, address: str, port: int, proto: str) -> str:
    return await place.outcome(address, port, proto=proto)
