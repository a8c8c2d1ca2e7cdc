"""Looks into the table of flows for everybody at once, and deletes from it in the background.

One look costs the kernel 10 ms and more, however few flows there are (it walks the whole table, and all namespaces
share it). So all who ask at the same time share one look, and nobody who changes an endpoint waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

from pyswarm_proxy import drain
from pyswarm_proxy.conntrack import Conntrack, Flow

log = logging.getLogger(__name__)
T = TypeVar("T")

# Flows in the table, for each address asked for, above which the kernel's filter is used: reading one flow costs 7 µs
# here, walking the table again 10 ms.
FILTER_ABOVE = 1500
RETRY = 0.5  # seconds
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass(slots=True)
class Leftovers:
    """Addresses whose flows must move or go; what exactly is `doomed`'s to say."""

    leaving: set[str] = field(default_factory=set)  # a task begins to leave
    died: set[str] = field(default_factory=set)  # a task of this host died without notice
    moved: set[str] = field(default_factory=set)  # a backend, here or elsewhere, that gets nothing any more
    gone: set[str] = field(default_factory=set)  # a backend that is dead, or whose time is over
    forgotten: set[str] = field(default_factory=set)  # an address that nobody has any more: what it opened goes too

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def addresses(self) -> set[str]:
        return set().union(*(getattr(self, f.name) for f in fields(self)))

    def add(self, other: Leftovers) -> None:
        for f in fields(self):
            getattr(self, f.name).update(getattr(other, f.name))


def doomed(flows: Iterable[Flow], left: Leftovers, probe_source: str) -> list[Flow]:
    """Which of these flows to delete. Pure."""
    every = list(flows)

    def to(addresses: set[str]) -> list[Flow]:
        return [flow for flow in every if flow.server in addresses]

    # Also at a host that only sent: what is sent again, where nobody answered, must not go the old way once the
    # redirect there has ended.
    chosen = drain.unanswered(to(left.leaving | left.moved), probe_source)
    chosen += drain.half_open(to(left.died)) + drain.datagrams(to(left.died | left.moved))
    chosen += to(left.gone | left.forgotten)
    chosen += [flow for flow in every if flow.client in left.forgotten]
    return list({flow.handle: flow for flow in chosen}.values())


class Flows:
    """Of the network namespace of the thread that runs the event loop. Raises OSError where it says so."""

    def __init__(self, probe_source: Callable[[], str]) -> None:
        self._probe_source = probe_source
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="conntrack")
        self._conntrack: Conntrack | None = None
        self._left = Leftovers()
        self._cleaner: asyncio.Task[None] | None = None
        self._asked: list[tuple[frozenset[str], asyncio.Future[list[Flow]]]] = []
        self._looker: asyncio.Task[None] | None = None

    async def to(self, addresses: Collection[str]) -> list[Flow]:
        """Flows to these addresses, by a look that begins after this call. Raises OSError."""
        if not addresses:
            return []
        future: asyncio.Future[list[Flow]] = asyncio.get_running_loop().create_future()
        self._asked.append((frozenset(addresses), future))
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())
        return await future

    async def _look(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            wanted = frozenset().union(*(addresses for addresses, _ in asked))
            try:
                flows = await self._run(partial(self._read, wanted, clients=False))
            except BaseException as e:
                for _, future in asked:
                    if not future.done():
                        future.set_exception(e)
                if not isinstance(e, OSError):
                    raise
                continue
            for addresses, future in asked:
                if not future.done():
                    future.set_result([flow for flow in flows if flow.server in addresses])

    def clean(self, left: Leftovers) -> None:
        """Soon: within some ten milliseconds on an idle host. Tried again until it is done."""
        self._left.add(left)
        if self._left and (self._cleaner is None or self._cleaner.done()):
            self._cleaner = asyncio.create_task(self._clean())

    async def cleaned(self) -> None:
        """Returns when all that was given to `clean` is done."""
        while self._cleaner is not None and not self._cleaner.done():
            await asyncio.wait([self._cleaner])

    async def _clean(self) -> None:
        while self._left:
            left, self._left = self._left, Leftovers()
            try:
                await self._run(partial(self._delete, left))
            except OSError as e:
                log.warning("flows could not be cleaned, trying again error=%s", e)
                self._left.add(left)
                await asyncio.sleep(RETRY)

    def _delete(self, left: Leftovers) -> None:
        flows = self._read(frozenset(left.addresses()), clients=bool(left.forgotten))
        self._table().delete(doomed(flows, left, self._probe_source()))

    def _read(self, addresses: frozenset[str], *, clients: bool) -> list[Flow]:
        """`clients`: also what these addresses opened."""
        count = _flows_here()
        if count == 0:
            return []
        table = self._table()
        if count < FILTER_ABOVE * len(addresses):
            return [f for f in table.all() if f.server in addresses or (clients and f.client in addresses)]
        found = [flow for address in addresses for flow in table.to(address)]
        return found + [flow for address in addresses if clients for flow in table.from_(address)]

    def _table(self) -> Conntrack:
        if self._conntrack is None:
            self._conntrack = Conntrack()
        return self._conntrack

    async def close(self) -> None:
        """Finishes what `clean` was given."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.cleaned()
        for task in (self._cleaner, self._looker):
            if task is not None:
                task.cancel()
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._conntrack is not None:
            self._conntrack.close()
            self._conntrack = None

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _flows_here() -> int:
    """Of this network namespace; a number that is not known counts as many."""
    try:
        return int(_COUNT.read_text())
    except (OSError, ValueError):
        return 1 << 20
