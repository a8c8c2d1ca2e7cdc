"""Connections, all the time and from every host: where they arrive, and that they do."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.simulation.calm import Calm
from tests.simulation.checks.sweep import Sweep
from tests.simulation.checks.words import serves
from tests.simulation.cluster import Cluster
from tests.simulation.host import Host
from tests.simulation.virtual import world_time

from pyswarm_manager.allocator.ranges import parse_range, to_int
from pyswarm_proxy.state import Pool

HOPS = 6  # a redirect leads to one that leads on, at most so often
PERIOD = 2.0  # seconds between two connections to a service


class Traffic:
    def __init__(self, cluster: Cluster, calm: Calm, sweep: Sweep) -> None:
        self._truth = cluster.truth
        self._findings = cluster.findings
        self._hosts = cluster.hosts
        self._by_node = {host.node_id: host for host in cluster.hosts.values()}
        self._net = cluster.net
        self._calm = calm
        self._sweep = sweep
        self._rng = cluster.rng("traffic")
        self._blocks: dict[str, tuple[int, list[tuple[int, int, str]]]] = {}
        self.results: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            for service_id in list(self._truth.services):
                self.connect(service_id)

    def connect(self, service_id: str) -> None:
        names = [name for name, host in self._hosts.items() if host.is_up and host.state is not None]
        if not names:
            return
        entry = self._hosts[self._rng.choice(names)]
        node = self._truth.nodes.get(entry.node_id)
        lasts = self._rng.choice((0.01, 0.1, 0.1, 1.0, 5.0, 20.0))
        result, last = self._walk(entry, service_id, lasts)
        self.results[result] += 1
        if result in ("connected", "by name"):
            return
        if (
            self._sweep.floor(service_id) > 0
            and self._is_balanced(service_id)
            and node is not None
            and node.serving
            and self._calm.seconds(service_id) > 90
        ):
            self._findings.add(
                "outside of faults no connection fails",
                f"a connection from {entry.name} was {result} at {last}",
                service_id, entry.node_id,
            )  # fmt: skip

    def _is_balanced(self, service_id: str) -> bool:
        """Every live node has confirmed one of its tasks."""
        tasks = self._truth.tasks_of_service(service_id)
        return any(task.balanced_at and serves(task, self._truth.nodes) for task in tasks)

    def _walk(self, entry: Host, service_id: str, lasts: float) -> tuple[str, str]:
        assert entry.state is not None
        service = entry.state.services.get(service_id)
        if service is None:
            return "unknown", entry.name
        pools = [vip.pool for vip in service.vips] + [port.pool for port in service.published]
        if not pools:
            return "by name", entry.name  # of its tasks: no balancer is asked
        pool: Pool = self._rng.choice(pools)
        here = entry
        for _ in range(HOPS):
            if not pool.backends:
                return ("held" if pool.hold else "refused"), here.name
            backend = self._rng.choice(pool.backends)
            owner = self._owner(backend.address)
            if owner is None or not owner.is_up or not self._net.can(here.name, owner.name):
                return "lost", backend.address
            redirect = owner.redirects.get(backend.address)
            if redirect is None:
                return self._arrive(owner, backend.address, lasts)
            pool, here = redirect, owner
        return "looped", here.name

    def _arrive(self, owner: Host, address: str, lasts: float) -> tuple[str, str]:
        task_id = owner.task_at(address)
        container = owner.containers.get(task_id) if task_id is not None else None
        if container is None or not container.running:
            return "refused", f"{address} on {owner.name}"
        assert task_id is not None
        if task_id in owner.left:
            owner.late[address] = owner.late.get(address, 0) + 1
            self._findings.add(
                "no new connection reaches a task after its owner has confirmed that it leaves",
                f"one reached {task_id} at {address} on {owner.name}",
                task_id, owner.node_id,
            )  # fmt: skip
        now = world_time()
        owner.flows.setdefault(address, []).append(now + lasts)
        return "connected", address

    def _owner(self, address: str) -> Host | None:
        """The host that packets to this address are routed to: that of the block it is in."""
        number = to_int(address)
        for network in self._truth.networks.values():
            known = self._blocks.get(network.id)
            if known is None or known[0] != network.version:
                blocks = [(parse_range(block.cidr), block.node_id) for block in network.blocks]
                known = network.version, [(one.first, one.first + one.size, node_id) for one, node_id in blocks]
                self._blocks[network.id] = known
            for first, end, node_id in known[1]:
                if first <= number < end:
                    return self._by_node.get(node_id)
        return None
