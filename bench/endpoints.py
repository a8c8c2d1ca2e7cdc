"""One endpoint changes: how long until this host's kernel balances by it, and how that grows with the services present.

    python bench/endpoints.py [--changes 100]

Each service has ten endpoints, a VIP and a published port. A change replaces one endpoint of one service, and is given
to the host's network as the agent does it: derive, compare, one nft transaction, flows. Then one apply of a service
that changes while nothing of its flows has to be looked for, and the load of everything from nothing. Milliseconds.
Aim: p99 ≤ 100 at 5,000.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time

from _wires import Bed, need

from pyswarm_agent.network.derive import Memory, host_state
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_proxy.state import SourceChecks


def service(number: int, generation: int = 0) -> ep.ServiceEndpoints:
    """Its tenth endpoint's address tells the generation."""
    service_id = f"{number:05}".ljust(25, "s")
    made = ep.ServiceEndpoints(
        service_id=service_id,
        name=f"s{number}",
        vips=[pb.Vip(network_id="neta", address=f"10.200.{number >> 8}.{number & 255}")],
        ports=[spec.Port(published=20000 + number, target=80)],
        networks=[spec.NetworkAttachment(network_id="neta")],
    )
    for slot in range(10):
        last = slot if slot < 9 else 10 + generation % 200
        address = f"10.200.{66 + slot % 2}.{last}"
        made.endpoints.add(
            task_id=f"{number:05}x{slot}x{generation if slot == 9 else 0}".ljust(25, "t"),
            node_id=f"node{2 + slot % 2}",
            slot=slot + 1,
            weight=1,
            addresses=[pb.TaskAddress(network_id="neta", address=address)],
        )
    return made


async def scale(bed: Bed, services: int, changes: int) -> list[str]:
    host = bed.host(1)
    for number in range(1, services + 1):
        made = service(number)
        bed.services[made.service_id] = made
    started = time.perf_counter()
    await host.apply()
    load = time.perf_counter() - started
    started = time.perf_counter()
    host_state(host.inputs(), Memory(), SourceChecks())
    derive = time.perf_counter() - started
    times = []
    for change in range(changes):
        made = service(1 + change % services, change + 1)
        bed.services[made.service_id] = made
        started = time.perf_counter()
        await host.apply()
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"{services:>8,}",
        f"{statistics.median(times):.1f}",
        f"{p99:.1f}",
        f"{load:.2f} s",
        f"{derive:.2f} s",
        f"{memory:.0f} MB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=100)
    changes = parser.parse_args().changes
    need("nft")
    print(
        "".join(
            f"{head:>14}" for head in ("services", "change p50", "change p99", "full load", "of it derive", "process")
        )
    )
    for services in (10, 1000, 5000):
        bed = Bed(hosts=3)
        try:
            row = asyncio.run(scale(bed, services, changes))
            print("".join(f"{cell:>14}" for cell in row))
        finally:
            bed.close()


if __name__ == "__main__":
    main()
