"""What the agent tells Prometheus: read from the kernel and counted when somebody asks; only what happens in between is
counted as it happens."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import Counter, Histogram

from pyswarm_agent import metrics_containers, metrics_traffic
from pyswarm_agent.metrics_readings import Readings
from pyswarm_agent.metrics_traffic import ByName, Leavings
from pyswarm_agent.session import Connector, Stream
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.log import get_logger
from pyswarm_core.scrape import text
from pyswarm_core.scrape.certificates import Certificates
from pyswarm_core.scrape.http import Page
from pyswarm_core.scrape.registry import new_registry
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("agent.metrics")

_STAGES = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_APPLIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_DRAINS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_CONNECTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_WITH_CONTAINER = range(Phase.PREPARING, Phase.CLEANING)
_NOTHING = Readings({}, {})


class Kernel(Protocol):
    """Of metrics_readings.Kernel. Blocks: it is called in a thread."""

    def read(self, task_ids: Sequence[str]) -> Readings: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """Asked at each scrape."""

    lives: Callable[[], Mapping[str, Life]]
    is_connected: Callable[[], bool]
    unstored: Callable[[], int]  # statuses that no manager has stored yet
    ack_lag: Callable[[], float]  # seconds since the oldest endpoint update that is not applied; 0 = none
    apply_failures: Callable[[], int]
    service_name: Callable[[str], str]  # by id; "" = there is no such service (any more)
    traffic: Callable[[], Awaitable[tuple[ByName, ByName]]]  # (by task, by service id)
    dns_queries: Callable[[], int]
    firewall_warnings: Callable[[], int]


class Metrics:
    """One registry for one agent, so that several can live in one process. `node`: this host's name. `parent`: of the
    tasks' control groups. `certificates`: what each is called → PEM file. `clock`: unix seconds."""

    def __init__(
        self,
        figures: Figures,
        kernel: Kernel,
        *,
        node: str,
        parent: str = "pyswarm",
        certificates: Mapping[str, Path] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = new_registry()
        self._figures = figures
        self._kernel = kernel
        self._node = node
        self._parent = parent
        self._clock = clock
        self._certificates = Certificates(certificates or {})
        self._leavings = Leavings()
        self._seen: dict[str, int] = {}
        options: dict[str, Any] = {"registry": self.registry}
        self._started = Counter("pyswarm_agent_tasks_started", "Containers started.", **options)
        self._ended = Counter("pyswarm_agent_tasks_ended", "Tasks that ended, by state.", ["state"], **options)
        for state in _states():
            if state >= pb.TASK_STATE_COMPLETE:
                self._ended.labels(_name(state))
        self._stage = Histogram(
            "pyswarm_agent_task_stage_seconds",
            "A task's way: image (pull), prepare (mount, link, create), start, healthy.",
            ["stage"],
            buckets=_STAGES,
            **options,
        )
        for stage in ("image", "prepare", "start", "healthy"):
            self._stage.labels(stage)
        self._apply = Histogram(
            "pyswarm_agent_apply_seconds",
            "From an endpoint update's arrival until the kernel had it.",
            buckets=_APPLIES,
            **options,
        )
        self._drain = Histogram(
            "pyswarm_agent_drain_seconds", "How long released tasks drained.", buckets=_DRAINS, **options
        )
        self._connect = Histogram(
            "pyswarm_agent_connect_seconds", "How long it took to connect to a manager.", buckets=_CONNECTS, **options
        )
        self._connect_errors = Counter(
            "pyswarm_agent_connect_errors", "Managers that could not be connected to.", **options
        )

    def applied(self, seconds: float) -> None:
        self._apply.observe(seconds)

    def connected(self, seconds: float, failed: bool) -> None:
        if failed:
            self._connect_errors.inc()
        else:
            self._connect.observe(seconds)

    def changed(self, life: Life) -> None:
        """Of every new life: counts what is new in it."""
        if life.phase is Phase.FORGOTTEN:
            self._seen.pop(life.id, None)
            return
        drained = self._leavings.changed(life, self._clock())
        if drained is not None:
            self._drain.observe(drained)
        state, before = life.status.state, self._seen.get(life.id)
        if before == state:
            return
        self._seen[life.id] = state
        if before is None:
            return  # new here, or found after a restart
        timings = life.status.timings
        if state == pb.TASK_STATE_READY:
            self._between("image", timings.accepted_at, timings.image_at)
            self._between("prepare", timings.image_at, timings.prepared_at)
        elif state == pb.TASK_STATE_RUNNING:
            self._started.inc()
            self._between("start", timings.prepared_at, timings.started_at)
            self._between("healthy", timings.started_at, timings.healthy_at)
        elif state >= pb.TASK_STATE_COMPLETE:
            self._ended.labels(_name(state)).inc()
            self._leavings.ended(life)

    def pages(self) -> Mapping[str, Page]:
        return {"/metrics": Page(text.CONTENT_TYPE, self.text)}

    async def text(self) -> bytes:
        lives = dict(self._figures.lives())
        with_container = [task_id for task_id, life in lives.items() if life.phase in _WITH_CONTAINER]
        readings, traffic = await asyncio.gather(self._read(with_container), self._count())
        return await text.render(self._pieces(lives, readings, traffic))

    # One part that cannot be had must not hide the others.

    async def _read(self, task_ids: Sequence[str]) -> Readings:
        try:
            return await asyncio.to_thread(self._kernel.read, task_ids)
        except Exception as error:
            log.warning("containers cannot be measured", error=error)
            return _NOTHING

    async def _count(self) -> tuple[ByName, ByName]:
        try:
            return await self._figures.traffic()
        except Exception as error:
            log.warning("traffic cannot be counted", error=error)
            return {}, {}

    def _pieces(self, lives: Mapping[str, Life], readings: Readings, traffic: tuple[ByName, ByName]) -> Iterator[str]:
        figures = self._figures
        for name, what, value in (
            ("session_up", "1 while there is a session with the leader, else 0.", int(figures.is_connected())),
            ("statuses_unstored", "Statuses that no manager has stored yet.", figures.unstored()),
            ("apply_lag_seconds", "Age of the oldest endpoint update that the kernel has not.", figures.ack_lag()),
            (
                "firewall_warnings",
                "Rules of others that hold up traffic; the log names them.",
                figures.firewall_warnings(),
            ),
        ):
            yield from text.one(f"pyswarm_agent_{name}", what, value)
        for name, what, value in (
            ("apply_failures_total", "Endpoint updates that the kernel refused at first.", figures.apply_failures()),
            ("dns_queries_total", "Questions to the tasks' name server.", figures.dns_queries()),
        ):
            yield from text.one(f"pyswarm_agent_{name}", what, value, "counter")
        tasks = text.Family("pyswarm_agent_tasks", "Tasks of this host by state.")
        tally = Tally(int(life.status.state) for life in lives.values())
        for state in _states():
            tasks.add(tally[state], text.labels({"state": _name(state)}))
        yield from tasks
        for family in self._certificates.families():
            yield from family
        yield from metrics_containers.families(lives, readings, self._node, self._parent)
        named, now = figures.service_name, self._clock()
        for family in metrics_traffic.families(lives, traffic, named, self._leavings, self._node, now):
            yield from family
        yield from text.of_registry(self.registry)

    def _between(self, stage: str, start: float, end: float) -> None:
        if start and end >= start:
            self._stage.labels(stage).observe(end - start)


class MeteredConnector:
    """A Connector that tells how long connecting took, in seconds, and whether it failed."""

    def __init__(self, connector: Connector, observe: Callable[[float, bool], None]) -> None:
        self._connector = connector
        self._observe = observe

    async def open(self, address: str) -> Stream:
        start = time.monotonic()
        failed = True
        try:
            stream = await self._connector.open(address)
            failed = False
            return stream
        finally:
            self._observe(time.monotonic() - start, failed)


def _states() -> list[int]:
    """Those that a task can be in."""
    return [state for state in pb.TaskState.values() if state != pb.TASK_STATE_REMOVE]


def _name(state: int) -> str:
    return pb.TaskState.Name(pb.TaskState.ValueType(state)).removeprefix("TASK_STATE_").lower()
