"""Nothing is too large: the overlay's MTU is the underlay's less the tunnel's header, and everybody knows it."""

from __future__ import annotations

import asyncio

from tests.integration.network.bed import Bed, Place
from tests.integration.network.load import eventually

VIP = "10.200.0.10"


async def _megabytes(place: Place, address: str, port: int, size: int = 3_000_000) -> None:
    """To the server and back."""
    sock = place.tcp_socket()
    await asyncio.get_running_loop().sock_connect(sock, (address, port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
    line = b"z" * 59_999 + b"\n"
    async with asyncio.timeout(20):
        for _ in range(size // len(line)):
            writer.write(line)
            assert await reader.readexactly(len(line)) == line
    writer.close()


async def test_large_transfers_and_datagrams_pass_everywhere(bed: Bed) -> None:
    await bed.task("web2", 2, service="web")
    await bed.task("idle1", 1, serve=False)
    await bed.task("idle2", 2, last=6, serve=False)
    bed.service("web", bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()
    assert bed.containers["idle1"].exec("cat", "/sys/class/net/eth0/mtu", check=False) or True
    assert "mtu 1450" in bed.containers["idle1"].exec("ip", "link", "show", "eth0")
    assert "mtu 1450" in bed.host(1).exec("ip", "link", "show", "psx4201")
    ways = [
        (bed.containers["idle1"], VIP, 80),
        (bed.containers["idle2"], VIP, 80),
        (bed.client, "10.90.0.11", 8080),
        (bed.client, "10.90.0.12", 8080),
        (bed.host(1), VIP, 80),
        (bed.host(3), "127.0.0.1", 8080),
    ]
    for place, address, port in ways:
        await _megabytes(place, address, port)
        for size in (1400, 1450, 1472, 1500, 4000, 9000):
            answer = await place.ask_udp(address, port, data=b"u" * size)
            assert answer.split()[::2] == ["web2", str(size)], (place.name, size, answer)


async def test_a_client_behind_a_narrow_link(bed: Bed) -> None:
    """A router between it and the hosts tells them by ICMP what fits; the message must reach the container."""
    await bed.task("web2", 2, service="web")
    bed.service("web", bed.endpoint("web2"), vip=VIP, published=8080)
    await bed.apply()
    far = bed._netns(f"{bed.prefix}f")
    bed.client.exec("ip", "link", "add", "narrow", "type", "veth", "peer", "name", "eth0", "netns", far)
    bed.client.exec("ip", "addr", "add", "10.91.0.1/24", "dev", "narrow")
    bed.client.exec("ip", "link", "set", "narrow", "mtu", "1200", "up")
    bed.client.exec("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    behind = Place("behind", bed.client.path.with_name(far))
    behind.exec("ip", "addr", "add", "10.91.0.2/24", "dev", "eth0")
    behind.exec("ip", "link", "set", "eth0", "up")  # its own end still takes 1500: it offers an MSS that does not fit
    behind.exec("ip", "route", "add", "default", "via", "10.91.0.1")
    for host in bed.hosts:
        host.exec("ip", "route", "add", "10.91.0.0/24", "via", "10.90.0.100")
    assert await behind.ask("10.90.0.11", 8080) == "web2 10.91.0.2"
    for entry in ("10.90.0.11", "10.90.0.12"):
        await _megabytes(behind, entry, 8080, 600_000)


async def test_the_overlay_and_the_links_follow_the_underlay(bed: Bed) -> None:
    await bed.task("web1", 1, service="web")
    await bed.task("idle2", 2, serve=False)
    bed.service("web", bed.endpoint("web1"), vip=VIP, published=8080)
    await bed.apply()
    places = [(bed.host(1), "psx4201"), (bed.containers["web1"], "eth0")]
    for underlay in (1400, 1500):
        bed.host(1).exec("ip", "link", "set", "eth0", "mtu", str(underlay))

        async def followed(wanted: int = underlay - 50) -> bool:
            return all(f"mtu {wanted}" in place.exec("ip", "link", "show", device) for place, device in places)

        await eventually(followed, 20)
        await _megabytes(bed.client, "10.90.0.11", 8080, 300_000)
        await _megabytes(bed.containers["idle2"], VIP, 80, 300_000)
    # a change while nobody looked
    bed.host(1).call(bed.host(1).network.stop())
    bed.host(1).exec("ip", "link", "set", "eth0", "mtu", "1300")
    bed.host(1).network = bed.host(1).call(bed.host(1)._new_network())
    await bed.apply(bed.host(1))
    for place, device in places:
        assert "mtu 1250" in place.exec("ip", "link", "show", device)
