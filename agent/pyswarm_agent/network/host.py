"""The host's side of the overlay: VXLAN devices, routes, neighbours, rules. Reads what is there, changes what differs.

Only what carries our device prefix or our routing protocol's number is ever looked at, let alone removed. So a restart
finds what it left, and leaves it alone.

Settings of the host that are changed, and stay: net.ipv4.ip_forward = 1 (the host routes for its containers). All
others are those of our own devices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pyswarm_agent.network import links, rtnl
from pyswarm_agent.network.checks import source_checks
from pyswarm_agent.network.flux import Flux
from pyswarm_agent.network.overlay import VXLAN_OVERHEAD, Device, Overlay, Route, steps
from pyswarm_agent.network.watch import KernelWatch
from pyswarm_core.errors import PyswarmError
from pyswarm_proxy.state import DEVICE_PREFIX, LINK_PREFIX, PEER_GROUP, SourceChecks

log = logging.getLogger(__name__)
T = TypeVar("T")

_PROC = Path("/proc/sys/net/ipv4")
ETHERNET_MTU = 1500


class HostFailure(PyswarmError):
    """The kernel did not take a link, route or rule."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Underlay:
    """`present`: the node's address is one of this host's."""

    mtu: int
    checks: SourceChecks
    present: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """`tasks`: the tasks' devices and their addresses; one whose device is not there (yet) is left out."""

    overlay: Overlay
    tasks: Mapping[str, Sequence[str]]


class HostNetwork:
    """All methods may be called at the same time; the kernel is changed from one thread."""

    def __init__(self, gateway: str, flux: Flux) -> None:
        """`flux`: tasks' links that others are changing are left to them."""
        self._gateway = gateway
        self._flux = flux
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rtnl")
        self._rtnl: rtnl.Rtnl | None = None
        self._watch: KernelWatch | None = None
        self._wanted: Wanted | None = None
        self._underlay_index = 0
        self.changed = asyncio.Event()  # somebody else touched something of ours: call repair()

    async def start(self) -> None:
        self._watch = KernelWatch(self.changed.set)
        self._watch.start()

    async def close(self) -> None:
        """The kernel keeps everything."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._rtnl is not None:
            self._rtnl.close()
            self._rtnl = None

    async def underlay(self, address: str) -> Underlay:
        return await self._run(lambda: self._underlay(address))

    async def prepare(self, wanted: Wanted) -> bool:
        """Adds what is missing. True: something is there that is not wanted any more; `apply` removes it.

        Does nothing when only tasks changed: whoever makes a task's link makes its routes. Raises HostFailure."""
        before = self._wanted
        if before is not None and wanted.overlay == before.overlay and not self.changed.is_set():
            self._wanted = wanted
            return False
        self.look_anew()
        await self._reconcile(wanted, remove=False)
        self._wanted = wanted
        return before is None or stale(before.overlay, wanted.overlay)

    def look_anew(self) -> None:
        """Before the kernel is read: what was told until now will be seen. (What we then change ourselves is told too,
        and costs one more look that finds nothing; to swallow that would swallow what others do meanwhile.)"""
        self.changed.clear()
        if self._watch is not None:
            self._watch.forget()

    async def apply(self, wanted: Wanted) -> None:
        """Makes it so. Raises HostFailure."""
        self.look_anew()
        await self._reconcile(wanted, remove=True)
        self._wanted = wanted

    async def repair(self) -> bool:
        """Puts back what others removed or changed; True when there was something. Call `look_anew` first.

        Raises HostFailure."""
        return self._wanted is not None and await self._reconcile(self._wanted, remove=True) > 0

    async def _reconcile(self, wanted: Wanted, *, remove: bool) -> int:
        try:
            count, indexes = await self._run(lambda: self._change(wanted, remove))
        except (OSError, KeyError) as e:
            self.changed.set()
            raise HostFailure(f"the host's network could not be set up: {e}") from e
        if self._watch is not None:
            self._watch.ours(indexes)
        return count

    def _change(self, wanted: Wanted, remove: bool) -> tuple[int, frozenset[int]]:
        kernel = self._kernel()
        _forward()
        before = self._flux.now()
        found, there = rtnl.found(kernel, self._gateway)
        index = rtnl.index_of(there)
        in_flux = self._flux.since(before)
        complete = with_tasks(wanted, index.keys() - in_flux)
        done = _mend_links(kernel, [link for link in there if link.name not in in_flux])
        for step in steps(found, complete, remove=remove):
            done += 1
            if not step.add and getattr(step.thing, "device", "") not in {"", *index}:
                continue  # it went with its device
            log.info("network change add=%s what=%s", step.add, step.thing)
            ignore = rtnl.ADD_IGNORES if step.add else rtnl.REMOVE_IGNORES
            try:
                kernel.do(*rtnl.request(step.thing, index, add=step.add), ignore=ignore)
            except OSError:
                if getattr(step.thing, "device", "") not in self._flux.since(before):
                    raise
            if isinstance(step.thing, Device):
                self._finish_device(kernel, step.thing, index, add=step.add)
        return done, frozenset(
            i
            for name, i in index.items()
            if name == "lo" or i == self._underlay_index or name.startswith((DEVICE_PREFIX, LINK_PREFIX))
        )

    @staticmethod
    def _finish_device(kernel: rtnl.Rtnl, device: Device, index: dict[str, int], *, add: bool) -> None:
        if not add:
            index.pop(device.name, None)
            return
        link = kernel.link(device.name)
        if link is None:
            raise KeyError(f"the device {device.name} vanished while it was set up")
        index[device.name] = link.index
        kernel.do(rtnl.no_ipv6(link.index), ignore=(95, 97))  # EOPNOTSUPP, EAFNOSUPPORT: a kernel without IPv6
        conf = rtnl.DEVICE_CONF | {"rp_filter": device.rp_filter}
        kernel.do(rtnl.set_up(link.index, conf, group=PEER_GROUP, mtu=device.mtu))

    def _underlay(self, address: str) -> Underlay:
        kernel = self._kernel()
        by_index = {link.index: link for link in kernel.links()}
        self._underlay_index = next((i for i, local, _ in kernel.addresses() if local == address), 0)
        mtu = by_index[self._underlay_index].mtu if self._underlay_index in by_index else 0
        return Underlay(min(mtu or ETHERNET_MTU, 65535), source_checks(), mtu > 0)

    async def purge(self) -> None:
        """Removes all that is ours: rules, routes, devices, the tasks' links, the address on lo."""
        self._wanted = None
        try:
            await self._run(self._purge)
        except OSError as e:
            raise HostFailure(f"the host's network could not be cleaned: {e}") from e

    def _purge(self) -> None:
        kernel = self._kernel()
        found, there = rtnl.found(kernel, self._gateway)
        for step in steps(found, Overlay()):
            index = rtnl.index_of(there)
            kernel.do(*rtnl.request(step.thing, index, add=False), ignore=rtnl.REMOVE_IGNORES)
        for link in there:
            if link.name.startswith(LINK_PREFIX):
                kernel.do(rtnl.del_link(link.index), ignore=rtnl.REMOVE_IGNORES)

    def _kernel(self) -> rtnl.Rtnl:
        if self._rtnl is None:
            self._rtnl = rtnl.Rtnl()
        return self._rtnl

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def with_tasks(wanted: Wanted, there: Set[str]) -> Overlay:
    """`there`: devices. What belongs onto a link that is not there is left out."""
    routes, neighbours = set(wanted.overlay.routes), set(wanted.overlay.neighbours)
    for name, addresses in wanted.tasks.items():
        if name not in there or not addresses:
            continue
        for thing in links.host_side(name, addresses):
            if isinstance(thing, Route):
                routes.add(thing)
            else:
                neighbours.add(thing)
    return replace(wanted.overlay, routes=frozenset(routes), neighbours=frozenset(neighbours))


def stale(before: Overlay, wanted: Overlay) -> bool:
    """Something that was wanted is not any more."""
    return any(not step.add for step in steps(before, wanted))


def overlay_mtu(underlay: Underlay) -> int:
    return underlay.mtu - VXLAN_OVERHEAD


def _mend_links(kernel: rtnl.Rtnl, there: Sequence[rtnl.Link]) -> int:
    """The settings of the tasks' links. (systemd gives new devices its own rp_filter a moment after they appear.)"""
    wrong = [link for link in there if link.name.startswith(LINK_PREFIX) and not links.is_right(link)]
    for link in wrong:
        log.info("network change settings of link=%s", link.name)
        kernel.do(links.settings(link.index), ignore=rtnl.REMOVE_IGNORES)
    return len(wrong)


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text().strip()
    except OSError:
        return ""


def _forward() -> None:
    if _read("ip_forward") != "1":
        log.info("sysctl set name=net.ipv4.ip_forward value=1")
        (_PROC / "ip_forward").write_text("1")
