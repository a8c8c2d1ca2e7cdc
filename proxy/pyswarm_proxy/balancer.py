"""The load balancer of one host: the wanted state goes in, and when `apply` returns it is what the kernel does.

Beside the rules there are flows that exist already. A flow keeps the backend it was given, so what must move is
deleted, a moment later: unanswered ones of a task that leaves, half-open ones of a task that died, datagrams of a
backend that is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from pyswarm_proxy import counters, drain
from pyswarm_proxy.counters import Count, Traffic
from pyswarm_proxy.dataplane import NftDataplane
from pyswarm_proxy.flows import Flows, Leftovers
from pyswarm_proxy.state import HostState, LocalTask, Service, changed_services

_NONE = Count(0, 0)


class LinkFigures(Protocol):
    """What the kernel counts of a task by itself."""

    async def usage(self, task_ids: Collection[str]) -> Mapping[str, Traffic]:
        """Bytes and resets so far; of a task whose link is gone, what they were at its end."""
        ...


class Balancer:
    """One for each network namespace. All methods may be called at the same time; changes are made one by one."""

    def __init__(
        self, links: LinkFigures, dataplane: NftDataplane | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._links = links
        self._plane = dataplane or NftDataplane()
        self._now = now
        self._lock = asyncio.Lock()
        self._flows = Flows(self._gateway)
        self._reader: counters.Elements | None = None
        self._redirected: dict[tuple[str, str], float] = {}  # (task, address) → since when
        self._resets_before: dict[str, int] = {}  # task → resets when its redirect came
        self._past: dict[str, Traffic] = {}  # service → of its tasks that are gone

    @property
    def changed(self) -> asyncio.Event:
        """Set when somebody else touched our tables: call `ensure`."""
        return self._plane.changed

    async def apply(self, state: HostState) -> None:
        """Errors: kernel.KernelRefused (retryable)."""
        async with self._lock:
            before = self._plane.state
            await self._remember_traffic(before, state)
            await self._plane.apply(state)
            kept = {(r.task_id, r.address) for r in state.redirects}
            fresh = kept - self._redirected.keys()
            ended = {address for _, address in self._redirected.keys() - kept}
            at = self._now()
            self._redirected = {key: self._redirected.get(key, at) for key in kept}
            await self._note_resets(kept)
            self._flows.clean(leftovers(before, state, {address for _, address in fresh}, ended))

    async def _note_resets(self, redirected: Collection[tuple[str, str]]) -> None:
        tasks = {task_id for task_id, _ in redirected}
        self._resets_before = {task: n for task, n in self._resets_before.items() if task in tasks}
        if fresh := tasks - self._resets_before.keys():
            usage = await self._links.usage(fresh)
            self._resets_before |= {task: usage.get(task, Traffic()).resets for task in fresh}

    async def _remember_traffic(self, before: HostState | None, state: HostState) -> None:
        """The counters of tasks that are about to lose them."""
        kept = {task.task_id for task in state.tasks}
        leaving = [task for task in before.tasks if task.task_id not in kept] if before is not None else []
        by_task = await self._traffic(leaving)
        for task in leaving:
            self._past[task.service_id] = self._past.get(task.service_id, Traffic()) + by_task[task.task_id]

    async def ensure(self) -> bool:
        """Puts back what others removed or changed; True when there was something. Cheap when there is not."""
        async with self._lock:
            return await self._plane.ensure()

    async def open_connections(self, *addresses: str) -> int:
        """TCP connections to local tasks that a client may still use, the agent's own probes left out."""
        flows = await self._flows.to(addresses)
        return drain.open_connections(flows, self._gateway())

    async def drained(self, addresses: Collection[str]) -> bool:
        """No open connection to any of them in two samples."""
        first = await self.open_connections(*addresses)
        if first:
            return False
        await asyncio.sleep(drain.SAMPLE_INTERVAL)
        return drain.is_drained(first, await self.open_connections(*addresses))

    def redirected(self) -> dict[str, float]:
        """Tasks that leave or died → since when (unix seconds) all of their addresses are redirected in the kernel."""
        found: dict[str, float] = {}
        for (task_id, _), at in self._redirected.items():
            found[task_id] = max(at, found.get(task_id, 0.0))
        return found

    async def drain_figures(self, task_id: str, addresses: Collection[str]) -> drain.DrainFigures:
        since = [self._redirected[key] for key in ((task_id, a) for a in addresses) if key in self._redirected]
        late, usage = self._counts("late"), await self._links.usage([task_id])
        return drain.DrainFigures(
            redirected_at=max(since, default=0.0),
            late_connections=sum(late.get(a, _NONE).packets for a in addresses),
            open_connections=await self.open_connections(*addresses),
            resets=max(0, usage.get(task_id, Traffic()).resets - self._resets_before.get(task_id, 0)),
        )

    async def release(self, addresses: Collection[str]) -> None:
        """The tasks may be stopped: their datagrams go elsewhere when this returns."""
        self._flows.clean(Leftovers(moved=set(addresses)))
        await self._flows.cleaned()

    async def counters(self) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
        """(by local task, by service), the latter with the tasks that are gone."""
        state = self._plane.state
        tasks = state.tasks if state is not None else ()
        by_task = await self._traffic(tasks)
        by_service = dict(self._past)
        for task in tasks:
            by_service[task.service_id] = by_service.get(task.service_id, Traffic()) + by_task[task.task_id]
        return by_task, by_service

    async def _traffic(self, tasks: Collection[LocalTask]) -> dict[str, Traffic]:
        if not tasks:
            return {}
        accepted = self._counts("accepted")
        usage = await self._links.usage([task.task_id for task in tasks])
        return {
            task.task_id: usage.get(task.task_id, Traffic())
            + Traffic(connections=sum(accepted.get(address, _NONE).packets for address in task.addresses))
            for task in tasks
        }

    async def close(self) -> None:
        """The kernel keeps everything."""
        async with self._lock:
            await self._plane.close()
            await self._flows.close()
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    async def purge(self) -> None:
        async with self._lock:
            await self._plane.purge()
            self._redirected.clear()

    def _gateway(self) -> str:
        return self._plane.state.gateway if self._plane.state is not None else ""

    def _counts(self, name: str) -> dict[str, Count]:
        """Of local tasks alone, and so small; some ten microseconds."""
        if self._reader is None:
            self._reader = counters.Elements()
        return self._reader.counts(name)


def leftovers(before: HostState | None, state: HostState, fresh: Collection[str], ended: Collection[str]) -> Leftovers:
    """What the step from one state to the next leaves behind in the table of flows. `fresh`, `ended`: addresses whose
    redirect began, ended. Pure."""
    gone, dead = _backends_gone(before, state)
    was_dead = {r.address for r in before.redirects if r.dead} if before is not None else set()
    had = {a for task in before.tasks for a in task.addresses} if before is not None else set()
    have = {a for task in state.tasks for a in task.addresses}
    return Leftovers(
        leaving=set(fresh),
        died={r.address for r in state.redirects if r.dead} - was_dead,
        moved=gone - dead,
        gone=dead | (set(ended) - have),
        forgotten=had - have - {r.address for r in state.redirects},
    )


def _backends_gone(before: HostState | None, state: HostState) -> tuple[set[str], set[str]]:
    """(addresses that are no backend any more, those of them that are dead: neither backend nor leaving)."""
    gone: set[str] = set()
    dead: set[str] = set()
    if before is None:
        return gone, dead
    taken: set[str] = set()  # an address may have gone to another service, or back
    for service_id in changed_services(before, state):
        none = Service(service_id, "")
        old, new = before.services.get(service_id, none), state.services.get(service_id, none)
        taken |= new.backends - old.backends
        left = old.backends - new.backends
        gone |= left | (old.leaving - new.leaving)
        dead |= left - new.leaving
    here = {r.address for r in state.redirects}  # those have an end of their own: release
    return gone - here - taken, dead - here - taken
