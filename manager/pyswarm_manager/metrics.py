"""What the manager tells Prometheus. The state of the cluster is counted when somebody asks, from the world as it is
then; nothing is kept up for it. Served on the event loop itself, so that a scrape sees one consistent revision."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Compare, Entry, Listing, Op, Store, TxnResult, WatchBatch
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.api.views import FINISHED, service_view
from pyswarm_manager.plan import World
from pyswarm_manager.settings import split_address
from pyswarm_manager.tasks import is_healthy, is_terminal

log = get_logger("manager.metrics")

T = TypeVar("T")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONGEST_REQUEST = 16_384  # bytes
_PATIENCE = 5.0  # seconds for a whole request


@dataclass(frozen=True, slots=True)
class Figures:
    """Asked at each scrape."""

    is_leader: Callable[[], bool]
    sessions: Callable[[], int]
    queues: Callable[[], Mapping[str, int]]  # name → keys that wait


class Metrics:
    """One registry for one manager, so that several can live in one process."""

    def __init__(self, world: World, figures: Figures) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Cluster(world, figures))
        self._waited = Histogram(
            "pyswarm_loop_wait_seconds", "From waking a loop to its start.", ["loop"], **self._options()
        )
        self._took = Histogram("pyswarm_loop_run_seconds", "One run of a loop.", ["loop"], **self._options())
        self._calls = Histogram("pyswarm_etcd_call_seconds", "One call to etcd.", ["call"], **self._options())
        self._errors = Counter(
            "pyswarm_etcd_errors", "Calls to etcd that failed.", ["call", "error"], registry=self.registry
        )

    def observe_loop(self, key: str, waited: float, took: float) -> None:
        loop = key.partition("/")[0]  # the keys of services are one loop
        self._waited.labels(loop).observe(max(0.0, waited))
        self._took.labels(loop).observe(max(0.0, took))

    def observe_call(self, call: str, took: float, error: BaseException | None) -> None:
        self._calls.labels(call).observe(took)
        if error is not None:
            self._errors.labels(call, type(error).__name__).inc()

    def _options(self) -> dict[str, Any]:
        return {"buckets": _BUCKETS, "registry": self.registry}


class _Cluster:
    """A prometheus_client collector."""

    def __init__(self, world: World, figures: Figures) -> None:
        self._world = world
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        world, figures = self._world, self._figures
        yield _one("pyswarm_is_leader", "1 on the manager that leads.", figures.is_leader())
        yield _one("pyswarm_store_revision", "What this manager has seen of the store.", world.revision)
        yield _one("pyswarm_agent_sessions", "Agents that are connected to this manager.", figures.sessions())
        nodes = Tally(_name(pb.NodeState, n.state, "NODE_STATE_") for n in world.nodes.values())
        yield _by("pyswarm_nodes", "Nodes by state.", "state", nodes)
        tasks = Tally(_name(pb.TaskState, t.status.state, "TASK_STATE_") for t in world.tasks.values())
        yield _by("pyswarm_tasks", "Tasks by state, history included.", "state", tasks)
        rollouts = Tally(_name(pb.RolloutState, r.state, "ROLLOUT_STATE_") for r in world.rollouts.values())
        yield _by("pyswarm_rollouts", "Stored rollouts by state.", "state", rollouts)
        yield _one(
            "pyswarm_rollouts_active",
            "Rollouts that are under way.",
            sum(r.state not in FINISHED for r in world.rollouts.values()),
        )
        yield _by("pyswarm_queue_depth", "Keys that wait for a worker.", "queue", figures.queues())
        yield from self._services()

    def _services(self) -> Iterable[Metric]:
        desired = GaugeMetricFamily("pyswarm_service_desired", "Tasks that a service wants.", labels=["service"])
        running = GaugeMetricFamily("pyswarm_service_running", "Its tasks that run.", labels=["service"])
        healthy = GaugeMetricFamily("pyswarm_service_healthy", "Its tasks that may serve.", labels=["service"])
        for service in self._world.services.values():
            labels = [service.spec.name]
            tasks = [t for t in self._world.tasks_of_service(service.id) if not is_terminal(t)]
            desired.add_metric(labels, service_view(self._world, service).desired)
            running.add_metric(labels, sum(t.status.state == pb.TASK_STATE_RUNNING for t in tasks))
            healthy.add_metric(labels, sum(is_healthy(t) and not t.leaving for t in tasks))
        return desired, running, healthy


def _name(enum: Any, value: int, prefix: str) -> str:
    return str(enum.Name(value)).removeprefix(prefix).lower()


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


class MeteredStore:
    """A Store that tells how long each call took and what it raised."""

    def __init__(self, store: Store, observe: Callable[[str, float, BaseException | None], None]) -> None:
        self._store = store
        self._observe = observe

    async def get(self, key: str) -> Entry | None:
        return await self._timed("get", self._store.get(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Listing:
        return await self._timed("list", self._store.list(prefix, revision=revision))

    async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> TxnResult:
        return await self._timed("txn", self._store.txn(compares, ops))

    def watch(
        self, prefix: str, *, from_revision: int, on_connected: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[WatchBatch, None]:
        return self._store.watch(prefix, from_revision=from_revision, on_connected=on_connected)

    async def grant(self, ttl: int) -> int:
        return await self._timed("grant", self._store.grant(ttl))

    async def keep_alive(self, lease: int) -> float:
        return await self._timed("keep_alive", self._store.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._timed("revoke", self._store.revoke(lease))

    async def compact(self, revision: int) -> None:
        await self._timed("compact", self._store.compact(revision))

    async def close(self) -> None:
        await self._store.close()

    async def _timed(self, call: str, awaitable: Awaitable[T]) -> T:
        start = time.monotonic()
        error: BaseException | None = None
        try:
            return await awaitable
        except Exception as raised:
            error = raised
            raise
        finally:
            self._observe(call, time.monotonic() - start, error)


async def serve(address: str, registry: CollectorRegistry) -> asyncio.Server:
    """Plain HTTP, GET /metrics. PreconditionFailed: the address cannot be had."""
    host, port = split_address(address, "metrics")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, registry))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST)
    except OSError as error:
        raise PreconditionFailed(f"The metrics address {address} cannot be used: {error.strerror or error}.") from None


def _response(head: bytes, registry: CollectorRegistry) -> bytes:
    method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    status, kind, body = "404 Not Found", "text/plain", b"The metrics are at /metrics.\n"
    if method not in ("GET", "HEAD"):
        status, body = "405 Method Not Allowed", b"Use GET.\n"
    elif path == "/metrics":
        status, kind, body = "200 OK", CONTENT_TYPE, generate_latest(registry)
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(lines).encode() + (b"" if method == "HEAD" else body)
