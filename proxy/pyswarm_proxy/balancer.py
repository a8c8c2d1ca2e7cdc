"""The load balancer of one host: the wanted state goes in, and when `apply` returns it is what the kernel does.

Beside the rules there are flows that exist already. A flow keeps the backend it was given, so what must move is
deleted: unanswered ones of a task that leaves, half-open ones of a task that died, datagrams of a backend that is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from pyswarm_proxy import conntrack, counters, drain
from pyswarm_proxy.counters import Count, Traffic
from pyswarm_proxy.dataplane import NftDataplane
from pyswarm_proxy.state import HostState, Redirect, Service

log = logging.getLogger(__name__)
T = TypeVar("T")


class Balancer:
    """One for each network namespace. All methods may be called at the same time; changes are made one by one."""

    def __init__(self, dataplane: NftDataplane | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._plane = dataplane or NftDataplane()
        self._now = now
        self._lock = asyncio.Lock()
        # one thread: conntrack dumps block, and its socket is not for two at a time
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="conntrack")
        self._flows: conntrack.Conntrack | None = None
        self._reader: counters.Elements | None = None
        self._redirected: dict[tuple[str, str], float] = {}  # (task, address) → since when
        self._resets_before: dict[str, int] = {}  # address → resets when its redirect came
        self._past: dict[str, Traffic] = {}  # service → of its tasks that are gone

    @property
    def changed(self) -> asyncio.Event:
        """Set when somebody else touched our tables: call `ensure`."""
        return self._plane.changed

    async def apply(self, state: HostState) -> None:
        """Errors: kernel.KernelRefused (retryable)."""
        async with self._lock:
            before = self._plane.state
            await self._remember(before, state)
            await self._plane.apply(state)
            at = self._now()
            fresh = [r for r in state.redirects if (r.task_id, r.address) not in self._redirected]
            was_dead = {r.address for r in before.redirects if r.dead} if before is not None else set()
            died = [r for r in state.redirects if r.dead and r.address not in was_dead]
            kept = {(r.task_id, r.address) for r in state.redirects}
            ended = [key for key in self._redirected if key not in kept]
            self._redirected = {key: self._redirected.get(key, at) for key in kept}
            gone, dead = _gone(before, state)
            await self._run(self._clean, state.gateway, fresh, died, gone, dead, [address for _, address in ended])

    def _clean(
        self,
        gateway: str,
        fresh: Collection[Redirect],
        died: Collection[Redirect],
        gone: frozenset[str],
        dead: frozenset[str],
        ended: Collection[str],
    ) -> None:
        """In this order after the redirect: deleting first would let the old rules make the flow again."""
        if not (fresh or died or gone or dead or ended):
            return
        table = self._table()
        if fresh:
            flows = table.to_any([r.address for r in fresh])
            table.delete(drain.unanswered(flows, gateway))
        if died:
            flows = table.to_any([r.address for r in died])
            table.delete(drain.half_open(flows) + drain.datagrams(flows))
        if gone:
            table.delete(table.to_any(gone, conntrack.UDP))
        if dead or ended:
            table.delete(table.to_any(dead | set(ended)))
        for redirect in fresh:
            self._resets_before[redirect.address] = self._counts("resets").get(redirect.address, _NONE).packets
        for address in ended:
            self._resets_before.pop(address, None)

    async def _remember(self, before: HostState | None, state: HostState) -> None:
        """The counters of tasks that are about to lose them."""
        if before is None:
            return
        kept = {task.task_id for task in state.tasks}
        leaving = [task for task in before.tasks if task.task_id not in kept]
        if not leaving:
            return
        by_task = await self._run(self._traffic, before)
        for task in leaving:
            total = self._past.get(task.service_id, Traffic())
            self._past[task.service_id] = total + by_task.get(task.task_id, Traffic())

    async def ensure(self) -> bool:
        """Puts back what others removed or changed; True when there was something. Cheap when there is not."""
        async with self._lock:
            return await self._plane.ensure()

    async def open_connections(self, address: str) -> int:
        """TCP connections to a local task that a client may still use, the agent's own probes left out."""
        flows = await self._run(lambda: self._table().to(address, conntrack.TCP))
        return drain.open_connections(flows, self._gateway())

    async def drained(self, addresses: Collection[str]) -> bool:
        """No open connection to any of them in two samples."""
        first = await self._count_open(addresses)
        if first:
            return False
        await asyncio.sleep(drain.SAMPLE_INTERVAL)
        return drain.is_drained(first, await self._count_open(addresses))

    async def _count_open(self, addresses: Collection[str]) -> int:
        flows = await self._run(lambda: [f for a in addresses for f in self._table().to(a, conntrack.TCP)])
        return drain.open_connections(flows, self._gateway())

    async def drain_figures(self, task_id: str, addresses: Collection[str]) -> drain.DrainFigures:
        since = [self._redirected[key] for key in ((task_id, a) for a in addresses) if key in self._redirected]
        late = await self._run(lambda: self._counts("late"))
        resets = await self._run(lambda: self._counts("resets"))
        return drain.DrainFigures(
            redirected_at=max(since, default=0.0),
            late_connections=sum(late.get(a, _NONE).packets for a in addresses),
            open_connections=await self._count_open(addresses),
            resets=sum(max(0, resets.get(a, _NONE).packets - self._resets_before.get(a, 0)) for a in addresses),
        )

    async def release(self, addresses: Collection[str]) -> None:
        """The tasks may be stopped: their datagrams go elsewhere from now on."""
        await self._run(lambda: self._table().delete(self._table().to_any(addresses, conntrack.UDP)))

    async def forget_flows(self, addresses: Collection[str]) -> None:
        """Of addresses that nobody has any more: both what came to them and what they opened."""
        await self._run(lambda: self._forget(addresses))

    def _forget(self, addresses: Collection[str]) -> None:
        table = self._table()
        for address in addresses:
            table.delete(table.to(address) + table.from_(address))

    async def counters(self) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
        """(by local task, by service), the latter with the tasks that are gone. In no table of others' doing: a reload
        by hand starts the former from zero."""
        state = self._plane.state
        if state is None:
            return {}, dict(self._past)
        by_task = await self._run(self._traffic, state)
        by_service = dict(self._past)
        for task in state.tasks:
            by_service[task.service_id] = by_service.get(task.service_id, Traffic()) + by_task[task.task_id]
        return by_task, by_service

    def _traffic(self, state: HostState) -> dict[str, Traffic]:
        sets = {name: self._counts(name) for name in ("accepted", "received", "sent", "resets")}
        found: dict[str, Traffic] = {}
        for task in state.tasks:
            total = Traffic()
            for address in task.addresses:
                total += counters.traffic(address, sets)
            found[task.task_id] = total
        return found

    async def close(self) -> None:
        """The kernel keeps everything."""
        async with self._lock:
            await self._plane.close()
            await self._run(self._close_sockets)
            self._thread.shutdown()

    async def purge(self) -> None:
        async with self._lock:
            await self._plane.purge()
            self._redirected.clear()

    def _close_sockets(self) -> None:
        for opened in (self._flows, self._reader):
            if opened is not None:
                opened.close()
        self._flows = self._reader = None

    def _gateway(self) -> str:
        return self._plane.state.gateway if self._plane.state is not None else ""

    def _table(self) -> conntrack.Conntrack:
        if self._flows is None:
            self._flows = conntrack.Conntrack()
        return self._flows

    def _counts(self, name: str) -> dict[str, Count]:
        if self._reader is None:
            self._reader = counters.Elements()
        return self._reader.counts(name)

    async def _run(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


_NONE = Count(0, 0)


def _gone(before: HostState | None, state: HostState) -> tuple[frozenset[str], frozenset[str]]:
    """(addresses that are no backend any more, those of them that are dead: neither backend nor leaving)."""
    if before is None or before.services is state.services:
        return frozenset(), frozenset()
    empty = Service("", "")
    gone: set[str] = set()
    dead: set[str] = set()
    for service_id, old in before.services.items():
        new = state.services.get(service_id)
        if new is old:
            continue
        new = new or replace(empty, service_id=service_id)
        left = old.backends - new.backends
        gone |= left | (old.leaving - new.leaving)
        dead |= left - new.leaving
    here = {r.address for r in state.redirects}  # those have an end of their own: release
    return frozenset(gone - here), frozenset(dead - here)
