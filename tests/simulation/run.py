"""One run: a cluster, a scenario, every check; then the faults end, and all must become right."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation import scenario, specs, virtual
from tests.simulation.checked import Checked
from tests.simulation.checks.settled import unsettled
from tests.simulation.cluster import Cluster
from tests.simulation.findings import Finding
from tests.simulation.scenario import Step
from tests.simulation.user import LEAST_SERVICES, NAMES
from tests.simulation.virtual import world_time
from tests.simulation.weather import Weather

from pyswarm_core.log import configure

READY_WITHIN = 60.0  # simulated seconds for the first start
SETTLED_WITHIN = 900.0  # after the faults' end: a restart may wait for 300 s, a node may be avoided for as long


@dataclass(slots=True)
class Outcome:
    seed: int
    finding: Finding | None
    trace: str
    hours: float  # with faults and a user; what it takes to settle afterwards is not counted
    settled_after: float = 0.0
    faults: int = 0
    actions: int = 0
    nodes: int = 0
    services: int = 0  # the fewest at any step
    seconds: float = 0.0  # of this processor
    counts: Counter[str] = field(default_factory=Counter)


def simulate(seed: int, hours: float, steps: Sequence[Step] | None = None) -> Outcome:
    """`steps` None: all of the seed's."""
    quiet()
    chosen = scenario.make(seed, hours) if steps is None else steps
    gc.collect()
    gc.disable()  # so that what it finds does not depend on what ran before
    began = time.process_time()
    try:
        outcome = virtual.run(_Run(seed, chosen).whole())
        outcome.seconds = time.process_time() - began
        return outcome
    finally:
        gc.enable()


def quiet() -> None:
    if os.environ.get("SIM_LOGS"):
        configure(os.environ["SIM_LOGS"])
        return
    for name in ("pyswarm", "pyswarm_agent", "pyswarm_proxy", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    os.cpu_count = lambda: 2  # the same on every machine


class _Run:
    def __init__(self, seed: int, steps: Sequence[Step]) -> None:
        self._seed = seed
        self._steps = steps

    async def whole(self) -> Outcome:
        loop = asyncio.get_running_loop()
        rng = random.Random(f"{self._seed}/run")
        cluster = self.cluster = Cluster(self._seed, nodes=rng.choice((5, 5, 6, 7)))
        checked = Checked(cluster)
        self.user = checked.user
        self.weather = Weather(cluster, checked.calm)
        outcome = Outcome(self._seed, None, "", 0.0)
        try:
            work = asyncio.ensure_future(self._all(rng, outcome))
            found = asyncio.ensure_future(cluster.findings.found.wait())
            await asyncio.wait((work, found), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            work.cancel()
            found.cancel()
        finally:
            checked.close()
        outcome.finding = cluster.findings.first
        outcome.trace = cluster.trace.digest()
        outcome.hours = outcome.hours or world_time() / 3600
        outcome.faults = self.weather.happened.total()
        outcome.nodes = len(cluster.hosts)
        outcome.counts.update({f"connection {what}": count for what, count in checked.traffic.results.items()})
        outcome.counts.update({f"user {what}": count for what, count in self.user.results.items()})
        outcome.counts.update({f"fault {what}": count for what, count in self.weather.happened.items()})
        outcome.counts.update(
            {"events": cluster.trace.count, "revisions": cluster.store.revision, "steps": loop.steps}  # type: ignore[attr-defined]
        )
        return outcome

    async def _all(self, rng: random.Random, outcome: Outcome) -> None:
        cluster = self.cluster
        cluster.start()
        if not await cluster.until(cluster.nodes_ready, READY_WITHIN):
            cluster.findings.add("a new cluster is ready soon", f"not within {READY_WITHIN} s")
            return
        for number, name in enumerate(NAMES[:LEAST_SERVICES]):
            while all(service.spec.name != name for service in cluster.truth.services.values()):
                # Refused, where the registry has no such image: then it is to be another.
                await self.user.create(specs.service(name, number, [], len(cluster.hosts), rng), rng)
        await self._follow(outcome)
        await self._settle(rng, outcome)

    async def _follow(self, outcome: Outcome) -> None:
        asked: list[asyncio.Task[None]] = []
        before = self.user.asked
        outcome.services = LEAST_SERVICES
        for step in self._steps:
            await asyncio.sleep(max(0.0, step.at - world_time()))
            self.cluster.trace.add(f"== {step.what}")
            rng = random.Random(step.number)
            there = sum(not service.removing for service in self.cluster.truth.services.values())
            outcome.services = min(outcome.services, there)
            if step.what in self.weather.faults:
                self.weather.begin(step.what, rng)
            else:
                asked.append(asyncio.ensure_future(_awaited(self.user.actions[step.what](rng))))
        if asked:
            await asyncio.wait(asked)
            for task in asked:
                task.result()
        outcome.actions = self.user.asked - before
        outcome.hours = world_time() / 3600

    async def _settle(self, rng: random.Random, outcome: Outcome) -> None:
        """The faults end; the user wants nothing that cannot be; and in bounded time everything is as it should be."""
        cluster = self.cluster
        cluster.trace.add("== the faults end")
        self.weather.end()
        began = world_time()
        await cluster.until(cluster.leader, 60)
        for host in cluster.hosts.values():
            await cluster.until(lambda host=host: host.node_id in cluster.truth.nodes, 60)  # type: ignore[misc]
            await self.user.set_node(host.node_id, rng)
        left: list[str] = []
        asked: dict[str, float] = {}
        while world_time() < began + SETTLED_WITHIN:
            await asyncio.sleep(2.0)
            await self._ask_for_sound(rng, asked)
            left = unsettled(cluster)
            if not left:
                outcome.settled_after = world_time() - began
                return
        about = [task.id for task in cluster.truth.tasks.values() if any(task.id in line for line in left)]
        about += [s.id for s in cluster.truth.services.values() if any(line.startswith(s.spec.name) for line in left)]
        cluster.findings.add(
            "faults end → the wanted state is reached, in bounded time",
            f"after {SETTLED_WITHIN:.0f} s: {'; '.join(left[:6])}",
            *about,
        )

    async def _ask_for_sound(self, rng: random.Random, asked: dict[str, float]) -> None:
        """Where a service cannot be right, because of its image or because its rollout was given up."""
        truth, now = self.cluster.truth, world_time()
        for service in list(truth.services.values()):
            rollout = truth.rollouts.get(service.rollout_id)
            if service.removing or rollout is None or not rollout.finished_at or asked.get(service.id, -1e9) > now - 60:
                continue
            if not specs.is_sound(service.spec) or specs.is_paused(rollout):
                asked[service.id] = now
                await self.user.update(rng, sound=True, name=service.spec.name)


async def _awaited(work: object) -> None:
    await work  # type: ignore[misc]
