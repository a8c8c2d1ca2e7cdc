#!/usr/bin/env python3
"""What scrapes cost a daemon with 1,000 services: how long one takes, how large it is, and how late the event loop is
while one follows another: a timer of 1 ms by the wall's clock, against the same loop without scrapes, and the longest
that the loop was held, by its own CPU time, which tells more on a busy machine."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.unit.agent.metrics.test_agent_metrics import Agent, life
from tests.unit.manager.metrics.build import NOW, figures
from tests.unit.manager.metrics.large import NODES, REPLICAS, SERVICES, large_world

from pyswarm_agent.metrics_readings import Kernel
from pyswarm_agent.runtime.cgroups import Cgroups
from pyswarm_agent.tasks.life import Phase
from pyswarm_manager.metrics import Metrics
from pyswarm_proxy.counters import Traffic

ROUNDS = 20
CONTAINERS = 100
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
TICK = 0.001


async def lags(work: Callable[[], Awaitable[object]]) -> list[float]:
    """Seconds by which a timer is late while `work` is done, in order."""
    found: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            found.append(time.perf_counter() - due)

    ticking = asyncio.create_task(tick())
    await work()
    ticking.cancel()
    return sorted(found)


async def longest(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds of CPU time between two turns of the loop."""
    most = 0.0

    async def turn() -> None:
        nonlocal most
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            most, before = max(most, now - before), now

    turning = asyncio.create_task(turn())
    await work()
    turning.cancel()
    return most


async def idle() -> None:
    await asyncio.sleep(1.0)


async def report(what: str, page: Callable[[], Awaitable[bytes]]) -> None:
    await page()
    cpu: list[float] = []
    size = 0

    async def scrapes() -> None:
        nonlocal size
        for _ in range(ROUNDS):
            start = time.process_time()
            size = len(await page())
            cpu.append(time.process_time() - start)

    without, during = await lags(idle), await lags(scrapes)
    held = await longest(page)
    print(
        f"{what:<32} {size / 1024:6.0f} KiB  {statistics.median(cpu) * 1000:6.1f} ms CPU   "
        f"loop held {held * 1000:.1f} ms; late p50 {of(during, 50)} p99 {of(during, 99)} max {of(during, 100)} ms "
        f"(without scrapes {of(without, 50)} {of(without, 99)} {of(without, 100)})"
    )


def of(seconds: list[float], percentile: int) -> str:
    """In milliseconds."""
    return f"{seconds[min(len(seconds) - 1, len(seconds) * percentile // 100)] * 1000:.1f}"


def groups() -> Cgroups:
    """Real control groups, without processes."""
    made = Cgroups.detect(f"pyswarm-bench-{os.getpid()}")
    if os.geteuid() == 0 and made.has("memory"):
        made.make_parent()
        return made
    raise SystemExit("skipped: needs root, for control groups")


async def main() -> None:
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, -15)  # before what else runs on this machine
    manager = Metrics(large_world(), figures(), clock=lambda: NOW)
    gc.collect()
    gc.freeze()  # as the manager does when it has read the store
    print(f"{SERVICES} services, {REPLICAS} tasks each, {NODES} nodes; {ROUNDS} scrapes, one after another")
    pages = manager.pages()
    for path in ("/metrics", "/sd/nodes", "/sd/tasks"):
        await report(f"manager {path}", pages[path].make)
    agent = Agent()
    for number in range(CONTAINERS):
        agent.becomes(life(Phase.RUNNING, f"task-{number}"))
        agent.by_task[f"task-{number}"] = Traffic(1, 2, 3, 4)
    for number in range(SERVICES):
        agent.names[f"s{number}"] = f"service-{number}"
        agent.by_service[f"s{number}"] = Traffic(1, 2, 3, 4)
    cgroups = groups()
    parents = {folder.parent for name in CONTROLLERS if (folder := cgroups.folder(name, "any")) is not None}
    try:
        for parent in parents:
            for number in range(CONTAINERS):
                (parent / f"task-{number}").mkdir()
        agent.metrics._kernel = Kernel(cgroups)
        await report(f"agent /metrics, {CONTAINERS} containers", agent.metrics.text)
    finally:
        for number in range(CONTAINERS):
            cgroups.remove(f"task-{number}")
        cgroups.remove_parent()


if __name__ == "__main__":
    asyncio.run(main())
