"""A witness beside the managers: it sees every write in etcd, when it came, and whether it may be.

One watch on each member, so that one of them always tells as long as etcd has a quorum; what comes first counts. The
times are therefore those of the arrival here, a little after the write itself and never before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from pyswarm_cli.lab.layout import Lab
from pyswarm_core import tls
from pyswarm_core.errors import Compacted, PyswarmError
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.kinds import LEADER_KEY, MESSAGES, PREFIX, decode
from pyswarm_core.membership.member import ETCD_PORT
from pyswarm_core.store.base import Entry, EventKind, WatchBatch
from pyswarm_core.v1 import objects_pb2 as pb

T = TypeVar("T")

# What no manager writes but the one that leads, while no user asks for anything.
LEADERS_KINDS = ("task", "rollout", "node", "network", "service")
QUIET = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Write:
    at: float  # monotonic seconds of its arrival here
    revision: int
    key: str
    is_delete: bool
    value: bytes
    create_revision: int

    @property
    def kind(self) -> str:
        return self.key.removeprefix(PREFIX).partition("/")[0]


class Witness:
    """`with` it. `findings`: one line for each thing that may never be."""

    def __init__(self, lab: Lab) -> None:
        self._identity = tls.Identity.load(lab.hosts[0].etc / "pyswarm" / "tls")
        self._endpoints = [f"{host.address}:{ETCD_PORT}" for host in lab.managers]
        self._names = {host.node_id: host.name for host in lab.hosts}
        self._lock = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stores: list[EtcdStore] = []
        self._delivered = 0
        self._error: BaseException | None = None
        self.writes: list[Write] = []
        self.tasks: dict[str, pb.Task] = {}
        self.services: dict[str, pb.Service] = {}
        self.rollouts: dict[str, pb.Rollout] = {}
        self.nodes: dict[str, pb.Node] = {}
        self.leader_revision = 0  # create_revision of the leader's key; 0 = nobody leads
        self.leader = ""  # its host's name
        self.findings: list[str] = []
        self._seen: dict[str, None] = {}

    def __enter__(self) -> Witness:
        self._thread.start()
        if not self._ready.wait(30) or self._error:
            raise AssertionError(f"the witness cannot read etcd: {self._error}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    # ---- asking it ----

    def wait(self, check: Callable[[Witness], object], what: str, seconds: float = 90) -> None:
        """Until `check(self)` is true; it is called at once, and after each write."""
        with self._lock:
            if not self._lock.wait_for(lambda: check(self), seconds):
                raise AssertionError(f"{what} did not happen within {seconds:.0f} s, seen from etcd\n{self.story()}")

    def since(self, revision: int, kinds: Sequence[str] = LEADERS_KINDS) -> list[Write]:
        with self._lock:
            return [w for w in self.writes if w.revision > revision and w.kind in kinds]

    @property
    def revision(self) -> int:
        """The last one that was seen."""
        with self._lock:
            return self._delivered

    def tasks_of(self, service: str) -> list[pb.Task]:
        with self._lock:
            return [task for task in self.tasks.values() if task.service_name == service]

    def story(self) -> str:
        lines = [
            f"{t.service_name}.{t.slot} {t.id[:12]} on {self._names.get(t.node_id, '?')} "
            f"{pb.TaskState.Name(t.desired_state)[11:]} {pb.TaskState.Name(t.status.state)[11:]} "
            f"{pb.Health.Name(t.status.health)[7:]} "
            f"leaving={t.leaving} released={t.released} balanced={bool(t.balanced_at)} "
            f"{t.status.message} {t.status.error}"
            for t in sorted(self.tasks.values(), key=lambda t: (t.service_name, t.slot))
        ]
        nodes = [
            f"{self._names.get(n.id)} {pb.NodeState.Name(n.state)} serving={n.serving} {n.state_message}"
            for n in self.nodes.values()
        ]
        return "\n".join([f"leader {self.leader or 'nobody'}, revision {self._delivered}", *nodes, *lines])

    def settled_revision(self) -> int:
        """Etcd's revision once everything is through that was proposed before: a read that etcd confirms."""
        return self._call(self._stores[0].list(LEADER_KEY)).revision

    def quiet_revision(self) -> int:
        """And once nothing more comes of what was on its way to etcd, which a read may overtake: of leaders' writes
        none came for QUIET seconds."""
        with self._lock:
            while self._lock.wait_for(self._has_grown(), QUIET):
                pass
        return self.settled_revision()

    def _has_grown(self) -> Callable[[], bool]:
        """Whether a leader's write has come since this was called."""
        last = self._delivered
        return lambda: any(w.kind in LEADERS_KINDS for w in self.since(last))

    def compact(self) -> int:
        """All history that can go goes; returns the revision up to which."""
        revision = self.revision
        self._call(self._stores[0].compact(revision))
        return revision

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    # ---- its thread ----

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # The first asks whichever member answers; the others have one member each.
        self._stores = [EtcdStore.connect(self._endpoints, self._identity)]
        self._stores += [EtcdStore.connect([endpoint], self._identity) for endpoint in self._endpoints]
        try:
            listing = await self._stores[0].list(PREFIX)
            for entry in listing.entries:
                self._take(entry, False)
            self._delivered = listing.revision
            watches = [asyncio.create_task(self._watch(s, listing.revision + 1)) for s in self._stores]
            self._ready.set()
            await self._stop.wait()
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._ready.set()
            for store in self._stores:
                await store.close()

    async def _watch(self, store: EtcdStore, revision: int) -> None:
        while True:
            try:
                async with aclosing(store.watch(PREFIX, from_revision=revision)) as watch:
                    async for batch in watch:
                        revision = batch.revision + 1
                        self._deliver(batch)
            except Compacted as error:
                if error.compact_revision > self._delivered:
                    self._find(f"the witness itself has missed revisions up to {error.compact_revision}")
                revision = max(self._delivered, error.compact_revision) + 1
            except PyswarmError:
                await asyncio.sleep(0.1)

    def _deliver(self, batch: WatchBatch) -> None:
        now = time.monotonic()
        with self._lock:
            for event in batch.events:
                entry = event.entry
                if entry.mod_revision <= self._delivered:
                    continue
                is_delete = event.kind is EventKind.DELETE
                self.writes.append(
                    Write(now, entry.mod_revision, entry.key, is_delete, entry.value, entry.create_revision)
                )
                self._take(entry, is_delete)
            self._look_at_addresses(batch)
            self._delivered = max(self._delivered, batch.revision)
            self._lock.notify_all()

    def _take(self, entry: Entry, is_delete: bool) -> None:
        if entry.key == LEADER_KEY:
            self.leader_revision = 0 if is_delete else entry.create_revision
            self.leader = "" if is_delete else self._names[pb.Leader.FromString(entry.value).manager_id]
            return
        kind, _, object_id = entry.key.removeprefix(PREFIX).partition("/")
        if kind not in MESSAGES:
            return
        table: dict[str, object] | None = {
            "task": self.tasks,
            "service": self.services,
            "rollout": self.rollouts,
            "node": self.nodes,
        }.get(kind)  # type: ignore[assignment]
        if table is None:
            return
        old = table.get(object_id)
        new = None if is_delete else decode(kind, entry.value, entry.mod_revision)
        if new is None:
            table.pop(object_id, None)
        else:
            table[object_id] = new
        if kind == "task":
            self._look_at_task(object_id, old, new)  # type: ignore[arg-type]

    def _find(self, line: str) -> None:
        if line not in self.findings:
            self.findings.append(line)

    def _look_at_task(self, task_id: str, old: pb.Task | None, new: pb.Task | None) -> None:
        if new is None:
            return
        if old is None:
            if task_id in self._seen:
                self._find(f"task {task_id} was made a second time")
            self._seen[task_id] = None
            return
        for field in ("desired_state", "leaving", "released", "addresses_free"):
            if getattr(new, field) < getattr(old, field):
                self._find(f"task {task_id}: {field} went back")
        if new.status.state < old.status.state:
            self._find(f"task {task_id}: its state went back")
        if old.node_id and new.node_id != old.node_id:
            self._find(f"task {task_id} changed its node")
        before, after = old.status.timings.started_at, new.status.timings.started_at
        if before and after != before:
            self._find(f"task {task_id} was started at {before} and again at {after}")

    def _look_at_addresses(self, batch: WatchBatch) -> None:
        """One transaction may move an address from a task to its successor: looked at once a revision is whole."""
        if not any(event.entry.key.startswith(PREFIX + "task/") for event in batch.events):
            return
        holders: dict[tuple[str, str], str] = {}
        for task in self.tasks.values():
            if task.addresses_free:
                continue
            for each in task.addresses:
                other = holders.setdefault((each.network_id, each.address), task.id)
                if other != task.id:
                    self._find(f"address {each.address} is held by {other} and {task.id}")


def percentiles(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    if not ordered:
        return "none"

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return f"n={len(ordered)} min={ordered[0]:.2f} p50={at(0.5):.2f} p90={at(0.9):.2f} max={ordered[-1]:.2f} s"


with contextlib.suppress(ImportError):
    import grpc  # noqa: F401  # here, in the main thread: its first import must not be in the witness's
