"""A host: what outlives the processes of its agent and its manager. Containers, links, mounts, and what its kernel does
with connections. The checks of what must never happen on a host are asked by `Watcher`, at the moment of each deed."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tests.simulation.disk import HostDisk
from tests.simulation.trace import Trace
from tests.simulation.virtual import SteadyClock, later, world_time

from pyswarm_agent.interfaces import ContainerExit, ContainerRequest
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.state import HostState, Pool

if TYPE_CHECKING:
    from tests.simulation.fuses import Fuse

DETAILS = bool(os.environ.get("SIM_DETAILS"))  # see `agent`
EPOCH = 1_700_000_000.0  # unix seconds at the beginning of a simulation
DRIFT = 0.05  # the most that a host's steady clock may gain or lose: docs/adr/0014 has a bound of 9 % between two


class Watcher(Protocol):
    """Told of every deed on every host, before it is done."""

    def started(self, host: Host, container: Container) -> None: ...
    def extends(self, host: Host, until: float) -> None: ...
    def told_to_stop(self, host: Host, container: Container, signal: str) -> None: ...
    def linked(self, host: Host, task_id: str, addresses: tuple[str, ...]) -> None: ...
    def loads(self, host: Host, state: HostState) -> None: ...


@dataclass(eq=False)
class Container:
    request: ContainerRequest
    pid: int
    kind: str  # what its image does: the last word of its name
    task: pb.Task  # as its agent knows it
    running: bool = False
    exit: ContainerExit | None = None
    started_at: float = 0.0  # by the host's clock
    fit_at: float = 0.0  # its probe passes from then on; simulated seconds
    sick_until: float = 0.0
    asked_at: float | None = None  # to stop, by its first signal; simulated seconds
    asked_slowly: bool = False  # the signal may have been long on its way

    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def was_told(self) -> bool:
        return self.asked_at is not None

    def is_alive(self) -> bool:
        return self.running

    def ended(self) -> asyncio.Future[None]:
        """Done when it has, or is not there any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.exit is not None:
            future.set_result(None)
        else:
            self.waiters.append(future)
        return future

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


@dataclass
class Troubles:
    """What goes wrong on this host now. Times in seconds."""

    images_fail: bool = False
    images_slow: float = 0.0
    kernel_refuses: bool = False
    kernel_hangs: bool = False
    creates_fail: int = 0
    starts_fail: int = 0
    work_slow: float = 0.0

    def any(self) -> bool:
        return self != Troubles()


class Host:
    def __init__(self, name: str, number: int, trace: Trace, watcher: Watcher, rng: random.Random) -> None:
        self.name = name
        self.node_id = name.replace("host", "node")
        self.address = f"10.90.0.{10 + number}"
        self.trace = trace
        self.watcher = watcher
        self.rng = rng
        self.disk = HostDisk(rng)
        self.troubles = Troubles()
        self.offset = 0.0  # of its wall clock, seconds
        self.jumped_at = -1e9  # simulated seconds
        self.jumped_by = 0.0
        self.slow_until = 0.0  # simulated seconds
        self.boots = 1
        self.is_up = True
        self.clock = SteadyClock(0.0, rng.choice((0.0, 1e4, 3e6)), rng.uniform(1 - DRIFT, 1 + DRIFT))
        self.fuses: dict[str, Fuse] = {}  # by task
        self._permit: float | None = None  # what is written down for them
        # When the last heartbeat was really sent that was answered with a permit, by its clock.
        self.permitted = -math.inf
        self.containers: dict[str, Container] = {}
        self.links: dict[str, tuple[str, ...]] = {}
        self.mounts: dict[str, None] = {}
        self.logs: dict[str, None] = {}
        self.state: HostState | None = None  # what is in the kernel
        self.redirects: dict[str, Pool] = {}  # by address, of `state`
        self.flows: dict[str, list[float]] = {}  # address → ends of the open connections to it
        self.late: dict[str, int] = {}  # address → new connections after its redirect
        self.resets: dict[str, int] = {}
        self.left: dict[str, None] = {}  # own tasks that the agent has confirmed to take no new connections
        self.ill_until: dict[str, float] = {}  # service → simulated seconds: what it needs is away
        self.confirmed_at = -1e9  # simulated seconds: the last endpoint update, in a session with a complete set
        self.is_told = False  # its agent, in this life, of all endpoints
        self.forgot = False  # an agent that ended could not write down all, and none has been told since
        self.on_start: Callable[[Host], None] = lambda host: None
        self.newest_fence = wire.Fence()  # that any of its agents has taken
        self.on_end: Callable[[Host, Container], None] = lambda host, container: None
        self._pids = 1000

    # ---- time, and how long exclusive tasks may run ----

    def boot_time(self) -> float:
        return self.clock.read(world_time())

    def read_permit(self, default: float) -> float:
        return self._permit if self._permit is not None else default

    def write_permit(self, until: float) -> None:
        self.watcher.extends(self, until)
        self._permit = round(until, 3)

    def now(self) -> float:
        """Its wall clock, unix seconds."""
        return EPOCH + world_time() + self.offset

    def shortest(self, seconds: float) -> float:
        """How little that may be: waited for by its steady clock or, where the agent started again, by the other."""
        return seconds / max(1.0, self.clock.rate)

    # ---- containers ----

    def create(self, request: ContainerRequest, task: pb.Task) -> Container:
        found = self.containers.get(request.task_id)
        if found is None:
            self._pids += 1
            kind = request.container.image.rpartition(":")[0].rpartition("/")[2]
            found = self.containers[request.task_id] = Container(request, self._pids, kind, task)
            self.logs[request.task_id] = None
            self.trace.add(f"{self.name} creates a container", request.task_id)
        return found

    def start(self, container: Container) -> None:
        self.watcher.started(self, container)
        container.running = True
        container.started_at = self.now()
        task_id = container.request.task_id
        self.trace.add(f"{self.name} starts a container ({container.kind})", task_id)
        rng = self.rng
        match container.kind:
            case "crash":
                later(rng.uniform(0.05, 2.0), self.end, container, 3)
            case "fades":  # runs for a while, then fails
                later(rng.uniform(20, 200), self.end, container, 1)
            case "done":
                later(rng.uniform(1, 30), self.end, container, 0)
        slow = rng.uniform(0.1, 8.0) if container.kind == "slow" else rng.uniform(0.0, 0.3)
        self.on_start(self)
        container.sick_until = max(container.sick_until, self.ill_until.get(container.request.service_name, 0.0))
        container.fit_at = float("inf") if container.kind == "sick" else world_time() + slow

    def stop(self, container: Container, signal: str) -> None:
        """A signal by the agent."""
        if not container.running:
            return
        self.watcher.told_to_stop(self, container, signal)
        if container.asked_at is None:
            container.asked_at = world_time()
            container.asked_slowly = container.asked_at < self.slow_until
        self.trace.add(f"{self.name} sends {signal}", container.request.task_id)
        if signal == "KILL":
            later(0.001, self.end, container, 137)
        elif container.kind != "hangs":
            later(self.rng.uniform(0.002, 0.5), self.end, container, 143)

    def end(self, container: Container, code: int, oom: bool = False) -> None:
        if not container.running:
            return
        container.running = False
        container.exit = ContainerExit(code, oom, self.now())
        task_id = container.request.task_id
        self.on_end(self, container)
        self.trace.add(f"{self.name}: the container ends with {code}{' (oom)' if oom else ''}", task_id)
        for address in self.links.get(task_id, ()):
            self.resets[address] = self.resets.get(address, 0) + self.open(address)
            self.flows.pop(address, None)
        container.wake()

    def burn(self, container: Container) -> None:
        """Its fuse has burnt, or could not be lit: it is killed, also when it was not started yet."""
        self.trace.add(f"{self.name}: the fuse kills", container.request.task_id)
        if container.running:
            later(0.001, self.end, container, 137)
        elif container.exit is None:
            container.exit = ContainerExit(137, False, self.now())
            container.wake()

    def remove(self, task_id: str) -> None:
        container = self.containers.get(task_id)
        if container is None:
            return
        if container.running:
            self.watcher.told_to_stop(self, container, "remove")
            self.end(container, 137)
        del self.containers[task_id]
        container.wake()
        self.trace.add(f"{self.name} removes the container", task_id)

    def passes_probe(self, task_id: str) -> bool:
        container = self.containers.get(task_id)
        now = world_time()
        if container is None or not container.running or now < container.fit_at or now < container.sick_until:
            return False
        return container.kind != "flaky" or self.rng.random() < 0.8

    # ---- the network ----

    def attach(self, task_id: str, addresses: tuple[str, ...]) -> None:
        self.watcher.linked(self, task_id, addresses)
        self.links[task_id] = addresses

    def detach(self, task_id: str) -> None:
        for address in self.links.pop(task_id, ()):
            self.flows.pop(address, None)

    def load(self, state: HostState) -> None:
        """The kernel takes a whole new state at once."""
        if DETAILS:
            services = " ".join(f"{one.name}{sorted(one.backends)}" for one in state.services.values())
            redirects = [redirect.address for redirect in state.redirects]
            self.trace.add(f"{self.name} loads {services} redirects {redirects}", self.node_id)
        self.watcher.loads(self, state)
        self.state = state
        self.redirects = {redirect.address: redirect.pool for redirect in state.redirects}
        dead = {redirect.address for redirect in state.redirects if redirect.dead}
        for address in dead:
            self.flows.pop(address, None)

    def task_at(self, address: str) -> str | None:
        return next((task_id for task_id, held in self.links.items() if address in held), None)

    def open(self, address: str) -> int:
        """Connections that are not over."""
        flows = self.flows.get(address)
        if not flows:
            return 0
        now = world_time()
        flows[:] = [end for end in flows if end > now]
        return len(flows)

    # ---- power ----

    def lose_power(self) -> None:
        """All is gone but the disk."""
        self.is_up = False
        for fuse in list(self.fuses.values()):
            fuse.kill()
        self._permit = None
        self.permitted = -math.inf
        for container in self.containers.values():
            container.running = False
        self.containers.clear()
        self.links.clear()
        self.mounts.clear()
        self.state = None
        self.redirects = {}
        self.flows.clear()
        self.late.clear()
        self.resets.clear()
        self.left.clear()
        self.newest_fence = wire.Fence()  # it may have been written and not flushed
        self.disk.lose_power()

    def boot(self) -> None:
        self.is_up = True
        self.boots += 1
        self.clock = SteadyClock(world_time(), self.rng.uniform(5, 30), self.clock.rate)
        # The runtime's state lies in /run, which is gone; the logs lie on the disk.
