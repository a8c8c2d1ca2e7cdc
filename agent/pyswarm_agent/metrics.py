"""What the agent tells Prometheus: counted when somebody asks, nothing is kept up for it but event counters.

Plain HTTP on loopback unless told otherwise, served by the event loop itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pyswarm_agent.settings import split_endpoint
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.counters import Traffic

log = get_logger("agent.metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_HEAD = 16 * 1024
PATIENCE = 5.0  # seconds for a whole request
_STAGES = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_APPLIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

ByName = Mapping[str, Traffic]


@dataclass(frozen=True, slots=True)
class Figures:
    """Asked at each scrape."""

    lives: Callable[[], Mapping[str, Life]]
    is_connected: Callable[[], bool]
    unstored: Callable[[], int]  # statuses that no manager has stored yet
    ack_lag: Callable[[], float]  # seconds since the oldest endpoint update that is not applied; 0 = none
    service_names: Callable[[], Mapping[str, str]]  # by id
    traffic: Callable[[], Awaitable[tuple[ByName, ByName]]]  # (by task, by service id)
    dns_queries: Callable[[], int]


class Metrics:
    """One registry for one agent, so that several can live in one process."""

    def __init__(self, figures: Figures) -> None:
        self.registry = CollectorRegistry()
        self._figures = figures
        self._tasks: ByName = {}
        self._services: ByName = {}
        self.registry.register(_Collector(figures, lambda: (self._tasks, self._services)))
        ProcessCollector(namespace="pyswarm_agent", registry=self.registry)
        options: dict[str, Any] = {"registry": self.registry}
        self._started = Counter("pyswarm_agent_tasks_started", "Containers started.", **options)
        self._ended = Counter("pyswarm_agent_tasks_ended", "Tasks that ended, by state.", ["state"], **options)
        self._stage = Histogram(
            "pyswarm_agent_task_stage_seconds",
            "Of a task's way: image (pull), prepare (mount, link, create), start, healthy.",
            ["stage"],
            buckets=_STAGES,
            **options,
        )
        self._apply = Histogram(
            "pyswarm_agent_apply_seconds",
            "From an endpoint update's arrival until the kernel holds it.",
            buckets=_APPLIES,
            **options,
        )
        self._seen: dict[str, int] = {}

    def applied(self, seconds: float) -> None:
        self._apply.observe(seconds)

    def changed(self, life: Life) -> None:
        """Of every new life: counts what is new in it."""
        if life.phase is Phase.FORGOTTEN:
            self._seen.pop(life.id, None)
            return
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

    async def text(self) -> bytes:
        try:
            self._tasks, self._services = await self._figures.traffic()
        except Exception as error:
            log.warning("traffic cannot be counted", error=error)
        return generate_latest(self.registry)

    def _between(self, stage: str, start: float, end: float) -> None:
        if start and end >= start:
            self._stage.labels(stage).observe(end - start)


class _Collector:
    """A prometheus_client collector."""

    def __init__(self, figures: Figures, traffic: Callable[[], tuple[ByName, ByName]]) -> None:
        self._figures = figures
        self._traffic = traffic
        self._names: dict[str, str] = {}  # of services that are gone, too: their counters stay

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        yield _one("pyswarm_agent_session_up", "1 while there is a session with a manager.", figures.is_connected())
        yield _one("pyswarm_agent_statuses_unstored", "Statuses that no manager has stored yet.", figures.unstored())
        yield _one(
            "pyswarm_agent_apply_lag_seconds", "Age of the oldest endpoint update not applied.", figures.ack_lag()
        )
        lives = figures.lives()
        tasks = GaugeMetricFamily("pyswarm_agent_tasks", "Tasks of this host by state.", labels=["state"])
        for state, count in sorted(Tally(_name(life.status.state) for life in lives.values()).items()):
            tasks.add_metric([state], count)
        yield tasks
        queries = CounterMetricFamily("pyswarm_agent_dns_queries", "Questions to the tasks' name server.")
        queries.add_metric([], figures.dns_queries())
        yield queries
        by_task, by_service = self._traffic()
        self._names.update(figures.service_names())
        yield from _traffic("service", by_service, self._names)
        yield from _traffic("task", by_task, {i: f"{x.task.service_name}.{x.task.slot}" for i, x in lives.items()})


def _traffic(what: str, traffic: ByName, names: Mapping[str, str]) -> Iterable[Metric]:
    texts = {
        "connections": "Connections to it on this host.",
        "bytes_in": "Bytes to it.",
        "bytes_out": "Bytes from it.",
        "resets": "Resets that it sent.",
    }
    for field, text in texts.items():
        family = CounterMetricFamily(f"pyswarm_{what}_{field}", text, labels=["id", "name"])
        for key, figures in sorted(traffic.items()):
            family.add_metric([key, names.get(key, "")], getattr(figures, field))
        yield family


def _name(state: int) -> str:
    return pb.TaskState.Name(pb.TaskState.ValueType(state)).removeprefix("TASK_STATE_").lower()


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


async def serve(address: str, text: Callable[[], Awaitable[bytes]]) -> asyncio.Server:
    """GET /metrics. Raises PreconditionFailed when the address cannot be had."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                path = [*head.split(b" ", 2), b""][1].split(b"?")[0]
                found = head.startswith(b"GET ") and path == b"/metrics"
                body = await text() if found else b"only GET /metrics is here\n"
                status = b"200 OK" if found else b"404 Not Found"
                length = str(len(body)).encode()
                lines = [b"HTTP/1.1 " + status, b"Content-Type: " + CONTENT_TYPE.encode(), b"Content-Length: " + length]
                writer.write(b"\r\n".join([*lines, b"Connection: close", b"", body]))
                await writer.drain()
        writer.close()

    host, port = split_endpoint(address)
    try:
        return await asyncio.start_server(handle, host.strip("[]"), port, limit=MAX_HEAD)
    except OSError as error:
        raise PreconditionFailed(
            f"metrics cannot be served on {address} ({error.strerror}): choose another with --metrics-addr"
        ) from error
