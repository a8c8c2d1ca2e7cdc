"""The network of one host, as the agent's core sees it: links, routes and load balancer, applied in the right order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pyswarm_agent.network import derive, namespaces
from pyswarm_agent.network.checks import source_checks
from pyswarm_agent.network.flux import Flux
from pyswarm_agent.network.host import ETHERNET_MTU, HostNetwork, Underlay, Wanted, overlay_mtu
from pyswarm_agent.network.inputs import GATEWAY, DrainFigures, NetworkInputs
from pyswarm_agent.network.links import TaskLinks, host_end
from pyswarm_agent.network.overlay import Overlay
from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_proxy import foreign
from pyswarm_proxy.balancer import Balancer
from pyswarm_proxy.counters import Traffic
from pyswarm_proxy.state import HostState, SourceChecks

log = logging.getLogger(__name__)

# Seconds. Changes by others are noticed as they happen; this is for those that were lost, or that the kernel does not
# tell.
LOOK_ANYWAY = 30.0
GLANCE = 2.0  # at what the kernel does not tell of and what costs next to nothing to read
# A stranger's change is seldom alone (`systemctl restart nftables` makes hundreds): one repair for all of them.
SETTLE = 0.1
RETRY = 1.0


class NodeNetwork:
    """Implements `inputs.Network`. `run_dir`: where the tasks' namespaces are pinned, in `netns/`."""

    def __init__(
        self,
        run_dir: Path,
        balancer: Balancer | None = None,
        host: HostNetwork | None = None,
        links: TaskLinks | None = None,
    ) -> None:
        self._folder = run_dir / "netns"
        flux = Flux()
        self._host = host or HostNetwork(GATEWAY, flux)
        self._memory = derive.Memory()
        self._inputs: NetworkInputs | None = None
        self._dead: frozenset[str] = frozenset()
        self._underlay = Underlay(ETHERNET_MTU, SourceChecks(), present=False)
        self._address = ""
        self._sized_for = 0  # the MTU that all tasks' links have
        self._subnets: dict[str, str] = {}
        self._known_overlay: tuple[object, Overlay] | None = None  # what it was derived from, and it
        self._lock = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._warned: tuple[str, ...] = ()
        self.links = links or TaskLinks(self._folder, lambda: overlay_mtu(self._underlay), self._subnet_of, flux)
        self._balancer = balancer or Balancer(self.links)

    async def start(self) -> None:
        await self._host.start()
        await self._look_at_others()
        self._keeper = asyncio.create_task(self._keep(), name="network keeper")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._host.close()
        await self._balancer.close()
        self.links.close()

    async def apply(self, inputs: NetworkInputs) -> None:
        async with self._lock:
            self._dead &= inputs.tasks.keys()
            self._inputs = inputs
            await self._apply()

    async def task_died(self, task_id: str) -> None:
        async with self._lock:
            if self._inputs is None or task_id in self._dead:
                return
            self._dead |= {task_id}
            await self._balancer.apply(self._host_state(self._effective()))

    async def release(self, task_id: str) -> None:
        await self._balancer.release(self._addresses(task_id))

    async def drained(self, task_id: str) -> bool:
        return await self._balancer.drained(self._addresses(task_id))

    async def drain_figures(self, task_id: str) -> DrainFigures:
        figures = await self._balancer.drain_figures(task_id, self._addresses(task_id))
        return DrainFigures(figures.redirected_at, figures.late_connections, figures.open_connections, figures.resets)

    def redirected(self) -> Mapping[str, float]:
        """This host's tasks whose redirect is in the kernel, with the unix seconds at which all of it was. Costs
        nothing."""
        return self._balancer.redirected()

    async def counters(self) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
        """(by task of this host, by service of this host's tasks, those that are gone included)."""
        return await self._balancer.counters()

    def warnings(self) -> tuple[str, ...]:
        """What others' firewalls do to our traffic; one sentence each."""
        return self._warned

    async def purge(self) -> None:
        async with self._lock:
            self._inputs = None
            self._memory = derive.Memory()
            await self._balancer.purge()
            await self._host.purge()
            await namespaces.in_own_thread(self._unpin_all)

    def _unpin_all(self) -> None:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                namespaces.unpin(path)
            self._folder.rmdir()

    def _effective(self) -> NetworkInputs:
        assert self._inputs is not None
        return replace(self._inputs, dead=self._inputs.dead | self._dead)

    async def _apply(self) -> None:
        """What routes and rules lead to must be there before them, and may go only after them."""
        inputs = self._effective()
        node = derive.own_node(inputs)
        if not self._underlay.present or node.address != self._address:
            self._underlay = await self._host.underlay(node.address)
            self._address = node.address
        if not self._underlay.present:
            raise PreconditionFailed(
                f"{node.address} is not an address of this host: "
                "start the agent with the address by which other nodes reach it"
            )
        self._subnets = {network.spec.subnet: network_id for network_id, network in inputs.networks.items()}
        wanted = self._wanted(inputs)
        remove = await self._host.prepare(wanted)
        await self._balancer.apply(self._host_state(inputs))
        self.links.forget_usage(inputs.tasks.keys())
        if remove:
            await self._host.apply(wanted)
        await self._size_links()

    async def _size_links(self) -> None:
        mtu = overlay_mtu(self._underlay)
        if mtu != self._sized_for:
            await self.links.resize()
            self._sized_for = mtu

    def _host_state(self, inputs: NetworkInputs) -> HostState:
        return derive.host_state(inputs, self._memory, self._underlay.checks)

    def _wanted(self, inputs: NetworkInputs) -> Wanted:
        tasks = {
            host_end(task.id): tuple(a.address for a in task.addresses)
            for task in inputs.tasks.values()
            if task.addresses and not task.addresses_free
        }
        return Wanted(self._overlay(inputs), tasks)

    def _overlay(self, inputs: NetworkInputs) -> Overlay:
        """Of nodes and networks alone: whatever changes about tasks and endpoints, it is the same object."""
        made_of = inputs.nodes, inputs.networks, inputs.node_number, self._underlay
        known = self._known_overlay
        if known is None or known[0] != made_of:
            overlay = derive.overlay(inputs, mtu=overlay_mtu(self._underlay), checks=self._underlay.checks)
            known = self._known_overlay = made_of, overlay
        return known[1]

    def _subnet_of(self, address: str) -> str:
        wanted = ipaddress.ip_address(address)
        return next((s for s in self._subnets if s and wanted in ipaddress.ip_network(s)), "")

    def _addresses(self, task_id: str) -> Sequence[str]:
        task = self._inputs.tasks.get(task_id) if self._inputs is not None else None
        return [a.address for a in task.addresses] if task is not None else []

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await _any_of(self._host.changed, self._balancer.changed, timeout=GLANCE)
            told = self._host.changed.is_set() or self._balancer.changed.is_set()
            if not told and loop.time() - looked_at < LOOK_ANYWAY and source_checks() == self._underlay.checks:
                continue
            looked_at = loop.time()
            await asyncio.sleep(SETTLE)
            try:
                await self._repair()
            except PyswarmError as e:
                log.warning("network repair failed error=%s", e)
                await asyncio.sleep(RETRY)
            except Exception:
                log.exception("network repair failed")
                await asyncio.sleep(RETRY)

    async def _repair(self) -> None:
        foreign_tables = self._balancer.changed.is_set()
        async with self._lock:
            if self._inputs is None:
                self._host.changed.clear()
                self._balancer.changed.clear()
                return
            self._host.look_anew()
            underlay = await self._host.underlay(derive.own_node(self._inputs).address)
            if underlay.present and underlay != self._underlay:
                self._underlay = underlay
                await self._host.apply(self._wanted(self._effective()))
                await self._balancer.apply(self._host_state(self._effective()))
                await self._size_links()
                repaired = True
            else:
                repaired = await self._host.repair()
            repaired = await self._balancer.ensure() or repaired
        if repaired:
            log.warning("network repaired: somebody else had changed it")
        if foreign_tables:
            await self._look_at_others()

    async def _look_at_others(self) -> None:
        found = await foreign.warnings()
        for sentence in set(found) - set(self._warned):
            log.warning("foreign firewall: %s", sentence)
        self._warned = found


async def _any_of(*events: asyncio.Event, timeout: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
