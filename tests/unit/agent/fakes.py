"""A host made of Python: what the agent's parts do to a real one, kept in tables. It outlives the agents of a test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm_agent.interfaces import (
    ContainerExit,
    ContainerFailure,
    ContainerRequest,
    ContainerState,
    Image,
    ImageConfig,
    ImageFailure,
)
from pyswarm_agent.network.inputs import DrainFigures, NetworkInputs
from pyswarm_agent.permit import Permit
from pyswarm_agent.tasks.listens import Listens
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


async def until(condition: Callable[[], object], timeout: float = 5.0, what: str = "") -> None:
    """Waits for a condition. Raises TimeoutError that says which."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - conditions of tables, not of events
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise TimeoutError(f"never true within {timeout} s: {what or condition}") from None


@dataclass
class FakeContainer:
    request: ContainerRequest
    running: bool = False
    exit: ContainerExit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    signals: list[str] = field(default_factory=list)


class FakeRuntime:
    def __init__(self) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.starts: Counter[str] = Counter()
        self.logs: set[str] = set()
        self.failures: dict[str, list[Exception]] = {}  # by method, taken one by one
        self.ignored: set[str] = set()  # signals that containers do not obey
        self.delay = 0.0
        self.busy = self.most_busy = 0
        self.outputs: dict[str, tuple[int, str]] = {}

    def _fail(self, method: str) -> None:
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    async def _work(self) -> None:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.busy -= 1

    async def create(self, request: ContainerRequest) -> int:
        await self._work()
        self._fail("create")
        self.containers.setdefault(request.task_id, FakeContainer(request))
        self.logs.add(request.task_id)
        return 1000 + len(self.containers)

    async def start(self, task_id: str) -> None:
        await self._work()
        self._fail("start")
        container = self.containers[task_id]
        if container.running or container.exit is not None:
            raise ContainerFailure("it was started already", final=True)
        container.running = True
        self.starts[task_id] += 1

    def finish(self, task_id: str, code: int = 0, *, oom: bool = False) -> None:
        container = self.containers[task_id]
        container.running = False
        container.exit = ContainerExit(code, oom, 5.0)
        container.ended.set()

    async def wait(self, task_id: str) -> ContainerExit:
        container = self.containers[task_id]
        await container.ended.wait()
        assert container.exit is not None
        return container.exit

    async def kill(self, task_id: str, signal: str) -> None:
        self._fail("kill")
        container = self.containers.get(task_id)
        if container is None or container.exit is not None:
            return
        container.signals.append(signal)
        if signal not in self.ignored:
            self.finish(task_id, 137 if signal == "KILL" else 143)

    async def delete(self, task_id: str) -> None:
        await self._work()
        self._fail("delete")
        self.containers.pop(task_id, None)

    async def forget(self, task_id: str) -> None:
        self._fail("forget")
        self.logs.discard(task_id)

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        self._fail("execute")
        if task_id not in self.containers:
            raise ContainerFailure("it does not run", final=True)
        return self.outputs.get(" ".join(argv), (0, ""))

    async def states(self) -> Sequence[ContainerState]:
        return [
            ContainerState(task_id, 0 if c.exit else 1000, c.running, c.exit, 3.0)
            for task_id, c in self.containers.items()
        ]

    def log_files(self, task_id: str) -> Sequence[Path]:
        return []


class FakeImages:
    def __init__(self) -> None:
        self.config = ImageConfig()
        self.mounted: set[str] = set()
        self.pulls: list[tuple[str, str]] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.auths: list[pb.RegistryAuth | None] = []
        self.kept: list[frozenset[str]] = []

    async def pull(
        self, image: str, digest: str, auth: pb.RegistryAuth | None, progress: Callable[[str], None]
    ) -> Image:
        self.pulls.append((image, digest))
        self.auths.append(auth)
        progress("pulling 1/2 layers")
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Image("image-" + image, digest, self.config)

    async def mount(self, image: Image, task_id: str) -> Path:
        self.mounted.add(task_id)
        return Path("/mounts") / task_id

    async def unmount(self, task_id: str) -> None:
        self.mounted.discard(task_id)

    async def collect(self, keep: frozenset[str]) -> None:
        self.kept.append(keep)

    @staticmethod
    def failure(sentence: str, *, final: bool) -> ImageFailure:
        return ImageFailure(sentence, final=final)


class FakeLinks:
    def __init__(self) -> None:
        self.links: dict[str, tuple[str, ...]] = {}
        self.failures: list[Exception] = []

    async def attach(
        self, task_id: str, addresses: Sequence[str], sysctls: Mapping[str, str], pinned: Callable[[Path], None]
    ) -> Path:
        if self.failures:
            raise self.failures.pop(0)
        for other, held in self.links.items():
            assert other == task_id or not set(held) & set(addresses), f"{addresses} are {other}'s"
        self.links[task_id] = tuple(addresses)
        return Path("/netns") / task_id

    async def detach(self, task_id: str) -> None:
        self.links.pop(task_id, None)

    async def attached(self) -> Sequence[str]:
        return list(self.links)


class FakeNetwork:
    def __init__(self) -> None:
        self.inputs: NetworkInputs | None = None
        self.applies = 0
        self.open: Counter[str] = Counter()  # connections by task
        self.late: Counter[str] = Counter()
        self.redirected: dict[str, float] = {}
        self.died: list[str] = []
        self.released: list[str] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None:
        pass

    async def apply(self, inputs: NetworkInputs) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.inputs = inputs
        self.applies += 1
        for service in inputs.endpoints.values():
            for endpoint in service.endpoints:
                if endpoint.node_id == inputs.node_id and endpoint.state:
                    self.redirected.setdefault(endpoint.task_id, 50.0)

    async def task_died(self, task_id: str) -> None:
        if task_id not in self.died:
            self.died.append(task_id)

    async def release(self, task_id: str) -> None:
        self.released.append(task_id)

    async def drained(self, task_id: str) -> bool:
        await asyncio.sleep(0.002)
        return not self.open[task_id]

    async def drain_figures(self, task_id: str) -> DrainFigures:
        return DrainFigures(self.redirected.get(task_id, 0.0), self.late[task_id], self.open[task_id], 0)

    async def stop(self) -> None:
        pass

    async def purge(self) -> None:
        self.inputs = None


@dataclass
class FakeProbing:
    task_id: str
    probe: spec.Probe
    health: pb.Health.ValueType
    report: Callable[[pb.Health.ValueType, str], None]
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True


class FakeProbes:
    def __init__(self) -> None:
        self.started: list[FakeProbing] = []

    def start(
        self,
        task_id: str,
        address: str,
        probe: spec.Probe,
        started_at: float,
        health: pb.Health.ValueType,
        report: Callable[[pb.Health.ValueType, str], None],
    ) -> FakeProbing:
        probing = FakeProbing(task_id, probe, health, report)
        self.started.append(probing)
        return probing

    def of(self, task_id: str) -> FakeProbing:
        return next(p for p in reversed(self.started) if p.task_id == task_id)


@dataclass
class FakeWatching:
    task_id: str
    pid: int
    addresses: tuple[str, ...]
    listens: Listens
    report: Callable[[tuple[int, ...]], None]
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True


class FakePorts:
    """Tasks listen at once, unless `silent`."""

    def __init__(self) -> None:
        self.started: list[FakeWatching] = []
        self.silent = False

    def start(
        self,
        task_id: str,
        pid: int,
        addresses: Sequence[str],
        listens: Listens,
        until: float,
        report: Callable[[tuple[int, ...]], None],
    ) -> FakeWatching:
        watching = FakeWatching(task_id, pid, tuple(addresses), listens, report)
        self.started.append(watching)
        if not self.silent:
            asyncio.get_running_loop().call_soon(lambda: None if watching.stopped else report(()))
        return watching


class FakeLogs:
    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    async def last_lines(self, task_id: str, count: int) -> Sequence[str]:
        return self.lines.get(task_id, [])[-count:]


class ReadyAtOnce:
    async def wait_for_task(self, task_id: str) -> None:
        pass


class FakeFuses:
    """`armed`: by task id. `failures` are raised by `arm`, one by one. `written`: what outlives the agent. `slow`:
    while it is clear, none can be armed."""

    def __init__(self) -> None:
        self.armed: set[str] = set()
        self.failures: list[Exception] = []
        self.written = Permit()
        self.slow = asyncio.Event()
        self.slow.set()
        self.waiting = 0

    def permit(self) -> Permit:
        return self.written

    def extend(self, permit: Permit) -> None:
        self.written = permit

    def is_armed(self, task_id: str) -> bool:
        return task_id in self.armed

    async def arm(self, task_id: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.waiting += 1
        await self.slow.wait()
        self.waiting -= 1
        self.armed.add(task_id)


@dataclass
class FakeHost:
    """Everything of a host that outlives its agent."""

    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    images: FakeImages = field(default_factory=FakeImages)
    links: FakeLinks = field(default_factory=FakeLinks)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    probes: FakeProbes = field(default_factory=FakeProbes)
    ports: FakePorts = field(default_factory=FakePorts)
    logs: FakeLogs = field(default_factory=FakeLogs)
    fuses: FakeFuses = field(default_factory=FakeFuses)

    def is_empty(self) -> bool:
        return not (self.runtime.containers or self.runtime.logs or self.images.mounted or self.links.links)
