"""Between the wanted state and the kernel: an interface, and nftables behind it.

A balancer that rewrites a VIP when a program connects (cgroup/connect4) would be a second one beside it: it needs the
same values and makes the same promise.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from pyswarm_proxy import counters, elements, ruleset
from pyswarm_proxy.diff import Table
from pyswarm_proxy.kernel import LARGE, KernelRefused, Nft
from pyswarm_proxy.state import HostState, SourceChecks, changed_services
from pyswarm_proxy.watch import TableWatch

log = logging.getLogger(__name__)


class Dataplane(Protocol):
    async def apply(self, state: HostState) -> None:
        """When it returns, every new connection is balanced by `state`. Its cost grows with what changed alone."""
        ...

    async def ensure(self) -> bool:
        """Puts back what others removed or changed; True when there was something to do."""
        ...

    async def close(self) -> None:
        """Ends helpers; what is in the kernel stays."""
        ...

    async def purge(self) -> None:
        """Removes it from the kernel."""
        ...


class NftDataplane:
    """One caller at a time. Raises KernelRefused when even a load of the whole is refused."""

    def __init__(self, nft: Nft | None = None) -> None:
        self._nft = nft or Nft()
        self._table = Table("", "", SourceChecks())
        self._state: HostState | None = None
        self._loaded = False
        self._watch: TableWatch | None = None
        self._reader: counters.Elements | None = None
        self._handle = 0
        self.changed = asyncio.Event()  # somebody else touched our tables: call ensure()
        self.reloads = 0

    @property
    def state(self) -> HostState | None:
        return self._state

    async def apply(self, state: HostState) -> None:
        before = self._state
        if before is None or _fixed(before) != _fixed(state):
            self._loaded = False
            self._table = Table(state.gateway, state.address, state.checks)
            before = None
        self._update_groups(before, state)
        self._state = state
        await self._write()

    def _update_groups(self, before: HostState | None, state: HostState) -> None:
        table = self._table
        host = elements.host_elements
        if before is None or host(before) != host(state):
            table.replace("host", host(state))
        for service_id in changed_services(before, state):
            service = state.services.get(service_id)
            table.replace(f"service {service_id}", elements.service_elements(service) if service is not None else None)
        old_groups = _task_groups(before) if before is not None else {}
        new_groups = _task_groups(state)
        for name, wanted in new_groups.items():
            if old_groups.get(name) != wanted:
                table.replace(name, wanted)
        for name in old_groups.keys() - new_groups.keys():
            table.replace(name, None)

    async def _write(self) -> None:
        if self._loaded:
            batch = self._table.batch()
            if not batch:
                return
            self._loaded = False  # until it is known to be done: a cancelled change may be in the kernel or not
            try:
                await self._change(batch)
                self._loaded = True
                return
            except KernelRefused as e:
                log.warning("balancer batch refused, loading the whole reason=%s", e)
        await self._load()

    async def _change(self, batch: str) -> None:
        watch = self._start_watch()
        if len(batch) <= LARGE:
            await self._nft.change(batch)
            return
        watch.pause()
        try:
            await self._nft.load(batch + "\n")
        finally:
            watch.listen()

    async def _load(self) -> None:
        assert self._state is not None
        watch = self._start_watch()
        watch.pause()
        try:
            self._loaded = False
            await self._load_table()
            self._loaded = True
            self.reloads += 1
            self._handle = self._read_handle()
        finally:
            watch.listen()

    async def _load_table(self) -> None:
        there = self._read_handle() != 0
        if there:
            try:
                await self._nft.load(self._table.whole(anew=False, recount=self.reloads == 0))
                return
            except KernelRefused as e:
                log.warning("balancer table is not as we make it, making it anew reason=%s", e)
        await self._nft.load(self._table.whole(anew=True))

    def _start_watch(self) -> TableWatch:
        if self._watch is None:
            self._watch = TableWatch(self.changed.set)
            self._watch.start()
            self._nft.on_shell = self._watch.own
        return self._watch

    def _read_handle(self) -> int:
        if self._reader is None:
            self._reader = counters.Elements()
        return self._reader.table_handle()

    async def ensure(self) -> bool:
        if self._state is None:
            return False
        if self.changed.is_set() or self._read_handle() != self._handle:
            self.changed.clear()
            self._loaded = False
        if self._loaded:
            return False
        await self._write()
        return True

    async def close(self) -> None:
        await self._nft.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def purge(self) -> None:
        watch = self._start_watch()
        watch.pause()
        self._state, self._table = None, Table("", "", SourceChecks())
        self._loaded = False
        await self._nft.load(f"add table {ruleset.TABLE}\ndelete table {ruleset.TABLE}\n")


def _fixed(state: HostState) -> tuple[object, ...]:
    """What stands in the rules themselves."""
    return state.gateway, state.address, state.checks


def _task_groups(state: HostState) -> dict[str, elements.Elements]:
    groups = {f"task {task.task_id}": elements.task_elements(task) for task in state.tasks}
    for redirect in state.redirects:
        groups[f"redirect {redirect.task_id} {redirect.address}"] = elements.redirect_elements(redirect)
    return groups
