"""A task's start by the real agent, image present: assignment sent → process runs; against conmon and the bare runtime.

    python bench/task_start.py [--rounds 30] [--parallel 30]

Needs root. One host of a lab with the agent as a process, and a scripted manager that assigns by gRPC and TLS. Ours is
everything: receipt, journal and its flush, root file system, network namespace and link, bundle, create, start. Bare is
conmon and the runtime on the same bundle (`_bare.py`), in the same host. Both take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.agent.core.onehost import IMAGE, OneHost, missing, one_host
from tests.support.fake_manager import FakeSession

from pyswarm_cli.lab import host as hosts
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb

STAGES = ("accepted", "image", "prepared", "started")
WITHIN = 30.0


class Agent:
    """The agent on its host, as its manager sees it."""

    def __init__(self, bed: OneHost, session: FakeSession) -> None:
        self.bed = bed
        self.session = session
        self.network = pb.Network(id="net1", vni=4242, vip_range="10.140.0.0/18")
        self.network.spec.name, self.network.spec.subnet = "default", "10.140.0.0/16"
        self.network.blocks.add(
            node_id=bed.node_id, node_number=1, cidr="10.140.64.0/24", node_address=bed.host.address
        )

    async def welcome(self) -> None:
        self.session.assign([], complete=True, networks=[self.network])
        node = wire.NodeAddress(node_id=self.bed.node_id, number=1, address=self.bed.host.address, hostname="host-1")
        self.session.balance([], complete=True, nodes=[node])
        await self.until(lambda: bool(self.session.applied))

    async def until(self, condition) -> None:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(WITHIN):
            while not condition():  # noqa: ASYNC110 - the session has no event for it
                await asyncio.sleep(0.005)

    def task(self, task_id: str, number: int) -> pb.Task:
        task = pb.Task(id=task_id, service_id="s1", service_name="bench", slot=number, node_id=self.bed.node_id)
        task.created_at, task.desired_state = time.time(), pb.TASK_STATE_RUNNING
        task.status.state = pb.TASK_STATE_ASSIGNED
        task.spec.container.image, task.spec.container.digest = IMAGE, self.bed.digest
        task.spec.container.args.extend(["/bin/busybox", "sleep", "1000"])
        task.spec.container.stop_grace = 0.1
        task.spec.resources.limit_memory, task.spec.resources.limit_pids = 64 << 20, 100
        task.spec.networks.add(network_id="net1")
        task.addresses.add(network_id="net1", address=f"10.140.64.{number + 2}")
        return task

    async def start(self, tasks: Sequence[pb.Task]) -> list[dict[str, float]]:
        """Milliseconds from the sending of all to each one's stages."""
        sent = time.time()
        self.session.assign(tasks)
        await self.until(lambda: all(self.timings(task).started_at for task in tasks))
        return [{s: (getattr(self.timings(task), f"{s}_at") - sent) * 1e3 for s in STAGES} for task in tasks]

    def timings(self, task: pb.Task) -> pb.Timings:
        status = self.session.statuses.get(task.id)
        return status.timings if status is not None else pb.Timings()

    async def end(self, tasks: Sequence[pb.Task]) -> None:
        self.session.assign(removed=[task.id for task in tasks])
        left = {task.id for task in tasks}
        inside = Path(f"/proc/{hosts.first_process(self.bed.host)}/root/run/pyswarm")
        await self.until(
            lambda: not left & {path.name for kind in ("containers", "netns") for path in (inside / kind).glob("*")}
        )


class Bare:
    """`_bare.py`, inside the host."""

    def __init__(self, bed: OneHost, pattern: str) -> None:
        script = str(Path(__file__).with_name("_bare.py"))
        self._command = hosts.enter(bed.lab, bed.host, [sys.executable, script, pattern])
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Bare:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        return self

    async def start(self, count: int) -> dict[str, float]:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n".encode())
        answer: dict[str, float] = json.loads(await self._process.stdout.readline())
        return answer

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@dataclass
class Found:
    """Milliseconds of single starts, seconds of many at once."""

    ours: list[dict[str, float]] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    many: list[tuple[float, float]] = field(default_factory=list)


async def measure(bed: OneHost, rounds: int, parallel: int) -> Found:
    found = Found()
    await bed.manager.start()
    try:
        await bed.start_agent("info")
        agent = Agent(bed, await bed.manager.next_session(30))
        await agent.welcome()
        keeper = agent.task("keeper", 0)
        await agent.start([keeper])
        async with Bare(bed, keeper.id) as bare:
            for number in range(-2, rounds):  # two to warm up
                task = agent.task(f"one{number}", 1)
                ours, floor = await agent.start([task]), await bare.start(1)
                await agent.end([task])
                if number >= 0:
                    found.ours += ours
                    found.bare.append(floor["median"])
            for number in range(5 if parallel else 0):
                tasks = [agent.task(f"many{number}x{each}", each + 1) for each in range(parallel)]
                seconds = max(one["started"] for one in await agent.start(tasks)) / 1e3
                await agent.end(tasks)
                found.many.append((seconds, (await bare.start(parallel))["seconds"]))
        await agent.end([keeper])
    finally:
        await bed.manager.stop()
    return found


def report(found: Found, parallel: int) -> Sequence[str]:
    medians = {stage: statistics.median(one[stage] for one in found.ours) for stage in STAGES}
    floor = statistics.median(found.bare)
    lines = [
        "one start, ms since the assignment was sent: " + ", ".join(f"{s} {ms:.1f}" for s, ms in medians.items()),
        f"conmon and bare runtime: {floor:.1f} ms; ratio {medians['started'] / floor:.2f} (aim: at most 1.3)",
    ]
    if found.many:
        ours, bare = (statistics.median(column) for column in zip(*found.many, strict=True))
        ratio = statistics.median(a / b for a, b in found.many)
        lines.append(f"{parallel} at once: pyswarm {ours:.2f} s, bare {bare:.2f} s, ratio {ratio:.2f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--parallel", type=int, default=30)
    arguments = parser.parse_args()
    if why := missing():
        raise SystemExit(f"bench/task_start.py {why}")
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as folder, one_host(Path(folder)) as bed:
        found = asyncio.run(measure(bed, arguments.rounds, arguments.parallel))
    print("\n".join(report(found, arguments.parallel)))


if __name__ == "__main__":
    main()
