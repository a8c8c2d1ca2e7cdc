"""The overlay against a VXLAN by hand of the same MTU: container to container on two hosts, no balancing.

    python bench/overlay.py [--rounds 5]

By hand without any firewall, and with connection tracking, which isolation needs. All ways take turns; a ratio is the
median of each round's own. Aim: ≥ 0.95. Then what a task's link costs to make and to remove.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from _wires import Bed, HandMade, Servers, Way, measure, need, same_ground, table, wait_until_served

TRACKED = """table ip hand {
 chain f { type filter hook forward priority 0; ct state invalid drop; }
}"""
FIGURES = ("requests/s", "Gbit/s")


async def build(bed: Bed, servers: Servers) -> tuple[list[Way], dict[str, str]]:
    for number in (1, 2):
        await bed.task(f"web{number}", number, serve=False)
        await bed.task(f"idle{number}", number, last=6, serve=False)
    await bed.apply()
    free = HandMade(bed, "n", 20, "10.210")
    hand = HandMade(bed, "m", 30, "10.211", TRACKED)
    for place in (bed.containers["web2"], free.servers[1], hand.servers[1]):
        servers.serve(place)
    ways = [
        Way("VXLAN by hand, not tracked", free.clients[0], "10.210.2.5"),
        Way("VXLAN by hand, tracked", hand.clients[0], "10.211.2.5"),
        Way("overlay", bed.containers["idle1"], bed.address("web2")),
    ]
    same_ground([*bed.hosts, *bed.containers.values(), *free.servers, *free.clients, *hand.servers, *hand.clients])
    for way in ways:
        await asyncio.to_thread(wait_until_served, way.place, way.address, way.http)
    return ways, {"VXLAN by hand, not tracked": "VXLAN by hand, tracked", "overlay": "VXLAN by hand, tracked"}


async def links(bed: Bed, count: int = 30) -> None:
    """Milliseconds, one after the other."""
    host = bed.host(1)
    attach, detach = [], []
    for i in range(count):
        task = f"{i:04}bench".ljust(25, "0")
        started = time.perf_counter()
        await host.do(host.network.links.attach(task, [f"10.200.65.{100 + i}"], {}))
        attach.append((time.perf_counter() - started) * 1000)
    for i in range(count):
        task = f"{i:04}bench".ljust(25, "0")
        started = time.perf_counter()
        await host.do(host.network.links.detach(task))
        detach.append((time.perf_counter() - started) * 1000)
    for what, times in (("made", attach), ("removed", detach)):
        print(f"a task's link {what}: median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    need("nft", "haproxy", "wrk", "iperf3", "curl", "conntrack")
    bed = Bed(hosts=2)
    servers = Servers(bed.folder)
    try:
        ways, base = asyncio.run(build(bed, servers))
        measure(ways, base, rounds, bed.hosts, FIGURES)
        table(ways, base, FIGURES)
        asyncio.run(links(bed))
    finally:
        servers.close()
        bed.close()


if __name__ == "__main__":
    main()
