"""What the manager tells Prometheus, and where to find what else there is to scrape.

The state of the cluster is counted when somebody asks, from the world as it is then, in slices of a millisecond; only
what happens in between is counted as it happens.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Histogram

from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.log import get_logger
from pyswarm_core.scrape import text
from pyswarm_core.scrape.certificates import Certificates
from pyswarm_core.scrape.http import Page
from pyswarm_core.scrape.registry import new_registry
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager import metrics_cluster, sd
from pyswarm_manager.metrics_cluster import Snapshot
from pyswarm_manager.metrics_events import Events
from pyswarm_manager.metrics_rpc import RpcMetrics
from pyswarm_manager.metrics_store import CALLS, MeteredStore
from pyswarm_manager.world import CachedWorld

__all__ = ["Figures", "MeteredStore", "Metrics"]

log = get_logger("manager.metrics")

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LOOPS = ("service", "scheduler", "drain")


@dataclass(frozen=True, slots=True)
class Figures:
    """Asked at each scrape."""

    is_leader: Callable[[], bool]
    leader_known: Callable[[], bool]
    is_connected: Callable[[], bool]  # to the store
    unapplied: Callable[[], Mapping[str, float | None]]
    """Of agents that have a session: node id → since when an endpoint update is not confirmed; None = none."""
    queues: Callable[[], Mapping[str, int]]  # name → keys that wait
    managers: Callable[[], Awaitable[Sequence[pb.Leader]]]  # that live. Errors: as Store.list


class Metrics:
    """One registry for one manager. `certificates`: what each is called → PEM file. `clock`: unix seconds."""

    def __init__(
        self,
        world: CachedWorld,
        figures: Figures,
        certificates: Mapping[str, Path] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.registry = new_registry()
        self.rpc = RpcMetrics(self.registry)
        self._world = world
        self._figures = figures
        self._clock = clock
        self._certificates = Certificates(certificates or {})
        self._events = Events(world, self.registry, figures.is_leader)
        world.subscribe(self._events.changed)
        options: dict[str, Any] = {"buckets": _BUCKETS, "registry": self.registry}
        self._waited = Histogram(
            "pyswarm_reconcile_wait_seconds", "From waking a reconcile loop to its start.", ["loop"], **options
        )
        self._took = Histogram("pyswarm_reconcile_run_seconds", "One run of a reconcile loop.", ["loop"], **options)
        for loop in _LOOPS:
            self._waited.labels(loop)
            self._took.labels(loop)
        self._calls = Histogram("pyswarm_etcd_call_seconds", "How long calls to etcd took.", ["call"], **options)
        self._errors = Counter(
            "pyswarm_etcd_errors", "Calls to etcd that failed.", ["call", "error"], registry=self.registry
        )
        for call in CALLS:
            self._calls.labels(call)
        self._terms = Counter("pyswarm_leader_terms", "How often this manager began to lead.", registry=self.registry)
        self._refused: set[sd.Refusal] = set()

    def observe_loop(self, key: str, waited: float, took: float) -> None:
        loop = key.partition("/")[0]  # the keys of services are one loop
        self._waited.labels(loop).observe(max(0.0, waited))
        self._took.labels(loop).observe(max(0.0, took))

    def observe_call(self, call: str, took: float, error: BaseException | None) -> None:
        self._calls.labels(call).observe(took)
        if error is not None:
            self._errors.labels(call, type(error).__name__).inc()

    def began_to_lead(self) -> None:
        self._terms.inc()

    def pages(self) -> Mapping[str, Page]:
        return {
            "/metrics": Page(text.CONTENT_TYPE, self.text),
            "/sd/nodes": Page("application/json", self._sd_nodes),
            "/sd/tasks": Page("application/json", self._sd_tasks),
        }

    async def text(self) -> bytes:
        return await text.render(self._pieces())

    def _pieces(self) -> Iterator[str]:
        figures = self._figures
        is_leader = figures.is_leader()
        yield from text.one("pyswarm_is_leader", "1 on the manager that leads, else 0.", int(is_leader))
        yield from text.one(
            "pyswarm_leader_known", "1 while this manager knows of a leader, else 0.", int(figures.leader_known())
        )
        yield from text.one(
            "pyswarm_store_connected", "1 while etcd delivers changes to this manager.", int(figures.is_connected())
        )
        yield from text.one(
            "pyswarm_store_revision", "The store's revision up to which this manager has seen it.", self._world.revision
        )
        queues = text.Family("pyswarm_reconcile_queue_depth", "Keys that wait for a worker.")
        for queue, depth in figures.queues().items():
            queues.add(depth, text.labels({"queue": queue}))
        yield from queues
        for family in self._certificates.families():
            yield from family
        if is_leader:
            yield from metrics_cluster.families(
                Snapshot.of(self._world), dict(figures.unapplied()), dict(self._events.restarts), self._clock()
            )
        yield from text.of_registry(self.registry)

    # ---- service discovery ----

    async def _sd_nodes(self) -> bytes:
        self._check_connected()
        managers = await self._figures.managers()
        return await text.render(sd.document(sd.nodes(Snapshot.of(self._world), managers)))

    async def _sd_tasks(self) -> bytes:
        self._check_connected()
        return await text.render(sd.document(self._told(sd.tasks(Snapshot.of(self._world)))))

    def _check_connected(self) -> None:
        # On an error Prometheus keeps the last list that it had, which is as good as ours.
        if not self._figures.is_connected():
            raise StoreUnavailable("This manager has lost etcd and does not know what runs: ask another one, or later.")

    def _told(self, found: Iterable[sd.Group | sd.Refusal | None]) -> Iterator[sd.Group | None]:
        """Each refusal is logged once, and again when it came back after having gone away."""
        refused: set[sd.Refusal] = set()
        for each in found:
            if not isinstance(each, sd.Refusal):
                yield each
            elif each not in refused:
                refused.add(each)
                if each not in self._refused:
                    log.warning("a service is not scraped", service=each.service, reason=each.reason)
        self._refused = refused
