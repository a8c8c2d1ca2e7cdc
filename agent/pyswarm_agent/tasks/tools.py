"""What a task's shell works with; each is the smallest thing that it needs of another part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pyswarm_agent.interfaces import Images, Links, Runtime
from pyswarm_agent.network.inputs import DrainFigures
from pyswarm_agent.tasks.life import Life
from pyswarm_agent.tasks.listens import Listens
from pyswarm_agent.tasks.request import Here
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

LAST_LINES = 10


class Balancer(Protocol):
    """Of `network.inputs.Network`, what concerns one task's end."""

    async def task_died(self, task_id: str) -> None: ...
    async def release(self, task_id: str) -> None: ...
    async def drained(self, task_id: str) -> bool: ...
    async def drain_figures(self, task_id: str) -> DrainFigures: ...


class Ready(Protocol):
    async def wait_for_task(self, task_id: str) -> None:
        """Returns when the host's side of the task's networks is in the kernel."""
        ...


class Running(Protocol):
    def stop(self) -> None: ...


class Probes(Protocol):
    def start(
        self,
        task_id: str,
        address: str,
        probe: spec.Probe,
        started_at: float,
        health: pb.Health.ValueType,
        report: Callable[[pb.Health.ValueType, str], None],
    ) -> Running:
        """Probes until it is stopped; reports each change of health, with the last probe's output."""
        ...


class Ports(Protocol):
    """`health.listening.PortWatch` is the real one."""

    def start(
        self,
        task_id: str,
        pid: int,
        addresses: Sequence[str],
        listens: Listens,
        until: float,
        report: Callable[[tuple[int, ...]], None],
    ) -> Running: ...


class TaskLogs(Protocol):
    async def last_lines(self, task_id: str, count: int) -> Sequence[str]: ...


class Lives(Protocol):
    """Of `journal_records.Records`, the tasks' part."""

    def lives(self) -> dict[str, Life]: ...
    def save(self, life: Life) -> None: ...
    def drop(self, task_id: str) -> None: ...
    @property
    def boot(self) -> str: ...
    def set_boot(self, boot_id: str) -> None: ...
    async def sync(self) -> None: ...


# How many containers are made, and how many started, at once. Half of that time is waiting for the kernel (a namespace,
# the first write to a cgroup), so twice the processors keep them busy, and more only lengthens each.
AT_ONCE = max(4, 2 * (os.cpu_count() or 1))


def _slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class Slots:
    """Apart, so that a container that is ready does not wait for all the others that are still to be made."""

    create: asyncio.Semaphore = field(default_factory=_slots)
    start: asyncio.Semaphore = field(default_factory=_slots)


@dataclass(frozen=True, slots=True)
class Tools:
    runtime: Runtime
    images: Images
    links: Links
    balancer: Balancer
    ready: Ready
    probes: Probes
    ports: Ports
    logs: TaskLogs
    lives: Lives
    here: Here
    auth: Callable[[str], pb.RegistryAuth | None]  # by service id
    slots: Slots
    clock: Callable[[], float]  # unix seconds
    guard: Callable[[str], Awaitable[None]]  # of an exclusive task, before its start; ContainerFailure
