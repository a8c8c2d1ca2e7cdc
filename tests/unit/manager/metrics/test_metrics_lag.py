"""A scrape never holds the event loop."""

from __future__ import annotations

import asyncio
import gc
import time

from tests.support.scrape import get, parse
from tests.unit.manager.metrics.build import NOW, figures
from tests.unit.manager.metrics.large import REPLICAS, SERVICES, large_world

from pyswarm_core.scrape import http
from pyswarm_manager.metrics import Metrics

LONGEST = 0.01  # seconds of this thread's own time; a slice is 0.001, and 0.0024 was the longest seen


async def test_the_loop_is_free_during_scrapes_of_a_thousand_services() -> None:
    made = Metrics(large_world(), figures(), clock=lambda: NOW)
    gaps: list[float] = []

    async def watch() -> None:
        # Not by the wall's clock: what others do to this machine is no fault of the scrape.
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            gaps.append(now - before)
            before = now

    gc.collect()
    gc.freeze()  # as the manager does when it has read the store
    try:
        async with await http.serve("127.0.0.1:0", made.pages()) as server:
            watching = asyncio.create_task(watch())
            _, _, body = await get(server.port, "/metrics")
            _, _, nodes = await get(server.port, "/sd/nodes")
            _, _, tasks = await get(server.port, "/sd/tasks")
            watching.cancel()
    finally:
        gc.unfreeze()
    found = parse(body)
    assert len(found.samples["pyswarm_service_desired_tasks"]) == SERVICES
    assert nodes.count('"targets"') == 100 and tasks.count('"targets"') == SERVICES * REPLICAS
    assert max(gaps) < LONGEST, sorted(gaps)[-10:]
    assert len(gaps) > 50
