"""Checks that are looked at once a simulated second: what has a bounded time to become right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tests.simulation.calm import Calm
from tests.simulation.findings import Findings
from tests.simulation.host import Host
from tests.simulation.truth import Truth

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.tasks import is_endpoint

STALE = 45.0  # seconds: 15 until a silent node is down, 10 for one that does not apply, and for loops and streams


class Sweep:
    """`is_managed`: there is a leader and it can write."""

    def __init__(
        self, truth: Truth, findings: Findings, hosts: Mapping[str, Host], calm: Calm, is_managed: Callable[[], bool]
    ) -> None:
        self._truth = truth
        self._findings = findings
        self._hosts = {host.node_id: host for host in hosts.values()}
        self._calm = calm
        self._is_managed = is_managed
        self._managed_since = 0.0
        self._stale: dict[tuple[str, str, str], float] = {}
        self._base: dict[str, int] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            if not self._is_managed():
                self._managed_since = loop.time() + 1
            self._balancers(loop.time())
            self._floor(loop.time())

    def floor(self, service_id: str) -> int:
        """How many healthy tasks the service must have now, at least; 0 when nobody can tell."""
        service = self._truth.services.get(service_id)
        base = self._base.get(service_id, 0)
        if service is None or service.removing:
            return 0
        return max(0, min(base, service.spec.replicas) - _allowance(service))

    def _balancers(self, now: float) -> None:
        """No balancer of a live node has a task that is not healthy."""
        holders = {
            (task.service_id, address.address): task
            for task in self._truth.tasks.values()
            if not task.addresses_free
            for address in task.addresses
            if is_endpoint(task, self._truth.nodes.get(task.node_id))
        }
        found: dict[tuple[str, str, str], float] = {}
        for node in self._truth.nodes.values():
            host = self._hosts.get(node.id)
            if host is None or host.state is None or node.state == pb.NODE_STATE_DOWN or not node.serving:
                continue
            for service in host.state.services.values():
                for address in service.backends:
                    if (service.service_id.removeprefix("host:"), address) in holders:
                        continue
                    key = (node.id, service.service_id, address)
                    since = found[key] = self._stale.get(key, now)
                    if now - max(since, self._managed_since) > STALE and node.state_at:
                        self._findings.add(
                            "no balancer of a live node has a task that is not healthy",
                            f"{host.name} has {address} of {service.name} since {since:.0f}",
                            node.id, service.service_id,
                        )  # fmt: skip
        self._stale = found

    def _floor(self, now: float) -> None:
        """Healthy tasks ≥ replicas - max unavailable, outside of faults."""
        for service in self._truth.services.values():
            if service.spec.mode == spec.SERVICE_MODE_GLOBAL or service.removing:
                continue
            healthy = sum(
                is_endpoint(task, self._truth.nodes.get(task.node_id))
                for task in self._truth.tasks_of_service(service.id)
            )
            replicas = service.spec.replicas
            if self._calm.seconds(service.id) < 75:
                self._base.pop(service.id, None)
                continue
            base = min(self._base.get(service.id, 0), replicas)
            if healthy < base - _allowance(service):
                self._findings.add(
                    "healthy tasks ≥ replicas - max unavailable, outside of faults",
                    f"{service.spec.name}: {healthy} of {base}, and {_allowance(service)} may be away",
                    service.id,
                )
            self._base[service.id] = max(base, min(healthy, replicas))


def _allowance(service: pb.Service) -> int:
    policies = (service.spec.update, service.spec.rollback, service.previous_spec.update)
    stops = any(policy.order == spec.UPDATE_ORDER_STOP_FIRST for policy in policies)
    if not stops and not service.spec.task.host_ports:
        return 0
    return max(policy.parallelism or service.spec.replicas or 1 for policy in policies)
