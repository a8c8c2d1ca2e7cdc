"""Probes tasks, each in a loop of its own, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from pyswarm_agent.health.checks import Executor, Result, check
from pyswarm_agent.health.threshold import Terms, Threshold
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

log = get_logger("agent.health")

Report = Callable[[pb.Health.ValueType, str], None]


class Probing:
    def __init__(self, work: asyncio.Task[None]) -> None:
        self._work = work

    def stop(self) -> None:
        self._work.cancel()


class Prober:
    def __init__(self, executor: Executor, clock: Callable[[], float]) -> None:
        """`clock`: unix seconds."""
        self._executor = executor
        self._clock = clock
        # A command costs the start of a process in the container: a host full of tasks must not run them all at once.
        self._commands = asyncio.Semaphore(max(2, 2 * (os.cpu_count() or 1)))

    def start(
        self,
        task_id: str,
        address: str,
        probe: spec.Probe,
        started_at: float,
        health: pb.Health.ValueType,
        report: Report,
    ) -> Probing:
        """`health` HEALTHY or UNHEALTHY: the task was probed before, by an agent that has been restarted."""
        threshold = Threshold(Terms.of(probe), started_at, health)
        return Probing(asyncio.create_task(self._loop(task_id, address, probe, threshold, report)))

    async def _loop(self, task_id: str, address: str, probe: spec.Probe, threshold: Threshold, report: Report) -> None:
        while True:
            result = await self._check(task_id, address, probe, threshold.terms.timeout)
            before = threshold.health
            threshold, pause = threshold.after(result.passed, self._clock())
            if threshold.health != before:
                log.info("health changed", task=task_id, healthy=result.passed, output=result.output)
                report(threshold.health, "" if result.passed else result.output)
            await asyncio.sleep(pause)

    async def _check(self, task_id: str, address: str, probe: spec.Probe, timeout: float) -> Result:
        if probe.WhichOneof("check") != "command":
            return await check(probe, task_id, address, timeout, self._executor)
        async with self._commands:
            return await check(probe, task_id, address, timeout, self._executor)
