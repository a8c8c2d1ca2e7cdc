"""Waits until a leaving task's connections are over."""

from __future__ import annotations

import asyncio

from pyswarm_agent.tasks.events import Drained, DrainSample, DrainTimedOut
from pyswarm_agent.tasks.tools import Balancer
from pyswarm_core.log import get_logger

log = get_logger("agent.drain")

# Between one look and the next. A look reads the host's connection table, so a long drain is looked at less often.
FIRST_PAUSE, LAST_PAUSE = 0.02, 0.25


async def sample(balancer: Balancer, task_id: str) -> DrainSample:
    """What is known now; nothing when the kernel cannot be asked."""
    try:
        figures = await balancer.drain_figures(task_id)
    except Exception as error:
        log.warning("connections cannot be counted", task=task_id, error=error)
        return DrainSample()
    return DrainSample(open=figures.open_connections, late=figures.late_connections, resets=figures.resets)


async def watch_drain(balancer: Balancer, task_id: str, seconds: float) -> Drained | DrainTimedOut:
    """For so long at most. A kernel that cannot be asked counts as connections that are still open."""
    clock = asyncio.get_running_loop().time  # nobody sets it meanwhile
    deadline = clock() + seconds
    try:
        await balancer.release(task_id)
    except Exception as error:
        log.warning("datagram flows are not cut off", task=task_id, error=error)
    pause = FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout(max(0.2, deadline - clock())):
                if await balancer.drained(task_id):
                    return Drained(await sample(balancer, task_id))
        except TimeoutError:
            pass
        except Exception as error:
            log.warning("connections cannot be counted", task=task_id, error=error)
        if clock() >= deadline:
            return DrainTimedOut(await sample(balancer, task_id))
        await asyncio.sleep(min(pause, max(0.0, deadline - clock())))
        pause = min(pause * 2, LAST_PAUSE)
