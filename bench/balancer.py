"""The balancer's VIP and published ports against the same made by hand, on the same host and across two.

    python bench/balancer.py [--rounds 5]

Same host: against a direct connection that passes connection tracking too. Across hosts: against one DNAT rule by hand
over a VXLAN by hand, of the same MTU. Beside them a direct connection without tracking, and HAProxy in TCP mode. HTTP
is served by HAProxy in the container. All ways take turns; a ratio is the median of each round's own. Aim: ≥ 0.95.
"""

from __future__ import annotations

import argparse
import asyncio

from _wires import Bed, HandMade, Servers, Way, measure, need, same_ground, table, wait_until_served

BY_HAND = """table ip hand {
 chain pre { type nat hook prerouting priority dstnat;
  ip daddr 10.211.255.1 tcp dport { 80, 5201 } dnat to 10.211.1.5
  ip daddr 10.211.255.2 tcp dport { 80, 5201 } dnat to 10.211.2.5
  ip daddr 10.90.0.31 tcp dport 8081 dnat to 10.211.1.5:80
  ip daddr 10.90.0.31 tcp dport 5211 dnat to 10.211.1.5:5201
  ip daddr 10.90.0.31 tcp dport 8082 dnat to 10.211.2.5:80
  ip daddr 10.90.0.31 tcp dport 5212 dnat to 10.211.2.5:5201
 }
 chain post { type nat hook postrouting priority srcnat; oifname "vx" ip saddr 10.90.0.100 masquerade; }
 chain f { type filter hook forward priority 0; ct state invalid drop; }
}"""


async def build(bed: Bed, servers: Servers) -> tuple[list[Way], dict[str, str]]:
    for number in (1, 2):
        await bed.task(f"web{number}", number, service=f"s{number}", serve=False)
        await bed.task(f"idle{number}", number, last=6, serve=False)
        service = f"s{number}"
        bed.service(service, bed.endpoint(f"web{number}"), vip=f"10.200.0.{10 + number}", published=8080 + number)
        bed.service(f"stream{number}", bed.endpoint(f"web{number}"), published=5210 + number, target=5201)
    await bed.apply()
    free = HandMade(bed, "n", 20, "10.210")
    hand = HandMade(bed, "m", 30, "10.211", BY_HAND)
    for place in (bed.containers["web1"], bed.containers["web2"], *free.servers, *hand.servers):
        servers.serve(place)
    ports = {7000 + n: (f"10.211.{n}.5", 80) for n in (1, 2)} | {7200 + n: (f"10.211.{n}.5", 5201) for n in (1, 2)}
    servers.proxy(hand.hosts[0], ports)
    bed.client.exec("ip", "route", "add", "10.211.0.0/16", "via", "10.90.0.31")
    idle, outside = bed.containers["idle1"], bed.client
    ways = [
        Way("same host, direct, not tracked", free.clients[0], "10.210.1.5"),
        Way("same host, direct", hand.clients[0], "10.211.1.5"),
        Way("same host, VIP", idle, "10.200.0.11"),
        Way("same host, from outside, direct", outside, "10.211.1.5"),
        Way("same host, from outside, published port", outside, "10.90.0.11", 8081, 5211),
        Way("same host, from outside, HAProxy", outside, "10.90.0.31", 7001, 7201),
        Way("two hosts, direct, not tracked", free.clients[0], "10.210.2.5"),
        Way("two hosts, DNAT by hand", hand.clients[0], "10.211.255.2"),
        Way("two hosts, VIP", idle, "10.200.0.12"),
        Way("two hosts, from outside, DNAT by hand", outside, "10.90.0.31", 8082, 5212),
        Way("two hosts, from outside, published port", outside, "10.90.0.11", 8082, 5212),
        Way("two hosts, from outside, HAProxy", outside, "10.90.0.31", 7002, 7202),
    ]
    places = {p.name: p for p in (*bed.hosts, *free.hosts, *hand.hosts, bed.client, *bed.containers.values())}
    same_ground([*places.values(), *free.servers, *free.clients, *hand.servers, *hand.clients])
    for way in ways:
        await asyncio.to_thread(wait_until_served, way.place, way.address, way.http)
    return ways, {
        "same host, direct, not tracked": "same host, direct",
        "same host, VIP": "same host, direct",
        "same host, from outside, published port": "same host, from outside, direct",
        "same host, from outside, HAProxy": "same host, from outside, direct",
        "two hosts, direct, not tracked": "two hosts, DNAT by hand",
        "two hosts, VIP": "two hosts, DNAT by hand",
        "two hosts, from outside, published port": "two hosts, from outside, DNAT by hand",
        "two hosts, from outside, HAProxy": "two hosts, from outside, DNAT by hand",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    need("nft", "haproxy", "wrk", "iperf3", "curl", "conntrack")
    bed = Bed(hosts=2)
    servers = Servers(bed.folder)
    try:
        ways, base = asyncio.run(build(bed, servers))
        measure(ways, base, rounds, [*bed.hosts])
        table(ways, base)
    finally:
        servers.close()
        bed.close()


if __name__ == "__main__":
    main()
