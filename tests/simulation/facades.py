"""What one life of an agent sees of its host: runtime, images, links and the parts of the kernel that it changes.

Each call takes a little time, may be refused by the host's troubles, and does nothing for an agent that is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tests.simulation.host import Container, Host
from tests.simulation.virtual import Party, world_time

from pyswarm_agent.interfaces import (
    ContainerExit,
    ContainerFailure,
    ContainerRequest,
    ContainerState,
    Image,
    ImageConfig,
    ImageFailure,
)
from pyswarm_agent.network.host import Underlay, Wanted, stale
from pyswarm_core.errors import PyswarmError
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.drain import SAMPLE_INTERVAL, DrainFigures
from pyswarm_proxy.state import HostState, SourceChecks

DIGEST = "sha256:" + "0" * 64


class Refused(PyswarmError):
    retryable = True


class Facade:
    """`party`: the agent."""

    def __init__(self, host: Host, party: Party) -> None:
        self._host = host
        self._party = party

    async def _work(self, least: float, most: float) -> None:
        self._party.check()
        rng = self._host.rng
        slow = self._host.troubles.work_slow
        await asyncio.sleep(rng.uniform(least, most) + (slow * rng.random() if slow else 0.0))
        self._party.check()


class Runtime(Facade):
    """An `interfaces.Runtime`. `task_of`: this agent's own idea of its tasks."""

    def __init__(self, host: Host, party: Party) -> None:
        super().__init__(host, party)
        self.task_of: Callable[[str], pb.Task] = lambda task_id: pb.Task(id=task_id)

    async def create(self, request: ContainerRequest) -> int:
        await self._work(0.01, 0.05)
        if self._host.troubles.creates_fail > 0:
            self._host.troubles.creates_fail -= 1
            raise ContainerFailure("the runtime could not make it", final=False)
        return self._host.create(request, self.task_of(request.task_id)).pid

    async def start(self, task_id: str) -> None:
        await self._work(0.005, 0.03)
        container = self._host.containers.get(task_id)
        if container is None:
            raise ContainerFailure("there is no such container", final=True)
        if container.running or container.exit is not None:
            raise ContainerFailure("it was started already", final=True)
        if self._host.troubles.starts_fail > 0:
            self._host.troubles.starts_fail -= 1
            raise ContainerFailure("the runtime could not start it", final=False)
        self._host.start(container)

    async def wait(self, task_id: str) -> ContainerExit:
        self._party.check()
        container = self._host.containers.get(task_id)
        if container is None:
            raise ContainerFailure("there is no such container", final=True)
        while container.exit is None:
            if self._host.containers.get(task_id) is not container:
                raise ContainerFailure("the container is gone", final=True)
            future = asyncio.get_running_loop().create_future()
            container.waiters.append(future)
            await future
            self._party.check()
        return container.exit

    async def kill(self, task_id: str, signal: str) -> None:
        await self._work(0.001, 0.005)
        container = self._host.containers.get(task_id)
        if container is not None:
            self._host.stop(container, signal)

    async def delete(self, task_id: str) -> None:
        await self._work(0.005, 0.03)
        self._host.remove(task_id)

    async def forget(self, task_id: str) -> None:
        await self._work(0.001, 0.003)
        self._host.logs.pop(task_id, None)

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        await self._work(0.005, 0.02)
        container = self._host.containers.get(task_id)
        if container is None or not container.running:
            raise ContainerFailure("it does not run", final=True)
        return (0, "") if self._host.passes_probe(task_id) else (1, "not well")

    async def states(self) -> Sequence[ContainerState]:
        await self._work(0.001, 0.005)
        return [_state(task_id, container) for task_id, container in self._host.containers.items()]

    def log_files(self, task_id: str) -> Sequence[Path]:
        return []


def _state(task_id: str, container: Container) -> ContainerState:
    pid = container.pid if container.exit is None else 0
    return ContainerState(task_id, pid, container.running, container.exit, container.started_at)


class Images(Facade):
    """An `interfaces.Images`."""

    async def pull(
        self, image: str, digest: str, auth: pb.RegistryAuth | None, progress: Callable[[str], None]
    ) -> Image:
        await self._work(0.005, 0.02)
        if self._host.troubles.images_slow:
            await self._work(0.0, self._host.troubles.images_slow)
        kind = image.rpartition(":")[0].rpartition("/")[2]
        if kind == "unknown":
            raise ImageFailure(f"image {image}: the registry has no such tag", final=True)
        if self._host.troubles.images_fail:
            raise ImageFailure(f"image {image}: the registry does not answer", final=False)
        return Image("image-" + image, digest or DIGEST, ImageConfig())

    async def mount(self, image: Image, task_id: str) -> Path:
        await self._work(0.0005, 0.002)
        self._host.mounts[task_id] = None
        return Path("/mounts") / task_id

    async def unmount(self, task_id: str) -> None:
        await self._work(0.0005, 0.002)
        self._host.mounts.pop(task_id, None)

    async def collect(self, keep: frozenset[str]) -> None:
        self._party.check()


class Links(Facade):
    """An `interfaces.Links`."""

    async def attach(
        self, task_id: str, addresses: Sequence[str], sysctls: Mapping[str, str], pinned: Callable[[Path], None]
    ) -> Path:
        path = Path("/netns") / task_id
        await self._work(0.001, 0.003)
        self._host.attach(task_id, tuple(addresses))
        pinned(path)
        await self._work(0.001, 0.003)
        return path

    async def detach(self, task_id: str) -> None:
        await self._work(0.002, 0.006)
        self._host.detach(task_id)

    async def attached(self) -> Sequence[str]:
        await self._work(0.001, 0.002)
        return list(self._host.links)

    # What NodeNetwork asks beside that: packets and their sizes are not modelled.

    async def resize(self) -> None:
        self._party.check()

    def forget_usage(self, kept: Collection[str]) -> None:
        pass


class HostNetwork(Facade):
    """Stands where `network.host.HostNetwork` stands: routes and devices, which are not modelled but for their time."""

    def __init__(self, host: Host, party: Party) -> None:
        super().__init__(host, party)
        self.changed = asyncio.Event()
        self._wanted: Wanted | None = None

    async def underlay(self, address: str) -> Underlay:
        await self._work(0.0005, 0.001)
        return Underlay(1500, SourceChecks(), present=address == self._host.address)

    async def prepare(self, wanted: Wanted) -> bool:
        before, self._wanted = self._wanted, wanted
        if before is not None and before.overlay == wanted.overlay:
            return False
        await self._work(0.001, 0.004)
        return before is None or stale(before.overlay, wanted.overlay)

    async def apply(self, wanted: Wanted) -> None:
        await self._work(0.001, 0.004)
        self._wanted = wanted


class Balancer(Facade):
    """Stands where `pyswarm_proxy.balancer.Balancer` stands: the kernel takes states whole, and remembers flows."""

    def __init__(self, host: Host, party: Party) -> None:
        super().__init__(host, party)
        self.changed = asyncio.Event()
        self._redirected: dict[tuple[str, str], float] = {}
        self._lock = asyncio.Lock()

    async def apply(self, state: HostState) -> None:
        async with self._lock:
            while self._host.troubles.kernel_hangs:
                await self._work(0.2, 0.4)
            await self._work(0.0005, 0.003)
            if self._host.troubles.kernel_refuses:
                raise Refused("the kernel does not take the rules")
            self._host.load(state)
            at = self._host.now()
            kept = {(redirect.task_id, redirect.address) for redirect in state.redirects}
            self._redirected = {key: self._redirected.get(key, at) for key in sorted(kept)}

    async def release(self, addresses: Collection[str]) -> None:
        await self._work(0.0005, 0.001)

    async def drained(self, addresses: Collection[str]) -> bool:
        await self._work(0.0005, 0.001)
        if any(self._host.open(address) for address in addresses):
            return False
        await asyncio.sleep(SAMPLE_INTERVAL)
        self._party.check()
        return not any(self._host.open(address) for address in addresses)

    async def drain_figures(self, task_id: str, addresses: Collection[str]) -> DrainFigures:
        await self._work(0.0005, 0.001)
        since = [self._redirected[task_id, a] for a in addresses if (task_id, a) in self._redirected]
        return DrainFigures(
            redirected_at=max(since, default=0.0),
            late_connections=sum(self._host.late.get(address, 0) for address in addresses),
            open_connections=sum(self._host.open(address) for address in addresses),
            resets=sum(self._host.resets.get(address, 0) for address in addresses),
        )


class TaskSockets:
    """A `listening.Sockets`: a container listens from the moment on at which it would pass a probe."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def of(self, task_id: str) -> TaskSockets:
        return self

    def takes(self, address: str, port: int) -> bool:
        container = self._host.containers.get(self._host.task_at(address) or "")
        return container is not None and container.running and world_time() >= container.fit_at

    def close(self) -> None:
        pass

    def find(self, pid: int) -> Container | None:
        return next((one for one in self._host.containers.values() if one.pid == pid), None)


class Logs:
    """A `tools.TaskLogs`."""

    async def last_lines(self, task_id: str, count: int) -> Sequence[str]:
        return ["the end"]


class Names:
    """An `applier.Names`."""

    def update(self, inputs: object) -> None:
        pass


class Publisher:
    """An `app_agent.Publisher`: logs are not simulated."""

    def start(self, request: object, address: str) -> None:
        pass

    def cancel(self, request_id: str) -> None:
        pass

    def cancel_all(self) -> None:
        pass
