"""Checks that are looked at once a simulated second: what has a bounded time to become right."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tests.simulation import specs
from tests.simulation.calm import Calm
from tests.simulation.checks.lately import Lately
from tests.simulation.checks.words import is_live, is_over, is_wanted, serves
from tests.simulation.cluster import Cluster
from tests.simulation.virtual import world_time

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

# Seconds. 15 until a silent node is down, 10 for one that does not apply, and for loops and streams.
STALE = 45.0
KNOWN = 20.0  # a task that is stored as unhealthy, or whose node as down, in the balancers
SETTLES = 75.0  # after a fault
OVERTAKEN = 60.0  # a change that overtakes another finds what that one has stopped
EMPTIED = 150.0  # a drained node
TWO_LEADERS = 1.0
ILL = 50.0
REDIRECTED = 4.0
BUSY, MOST_WRITES = 30, 1500  # seconds, and revisions in so many: whoever writes more does the same over and over

_ENDED_WELL = (pb.ROLLOUT_STATE_COMPLETED, pb.ROLLOUT_STATE_ROLLED_BACK)


Wrong = tuple[str, str, float, tuple[str, ...]]  # invariant, what is wrong, how long it may be, ids


class Sweep:
    """`is_managed`: there is a leader and it can write."""

    def __init__(self, cluster: Cluster, calm: Calm, is_managed: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._truth = cluster.truth
        self._findings = cluster.findings
        self._hosts = {host.node_id: host for host in cluster.hosts.values()}
        self._calm = calm
        self._is_managed = is_managed
        self._managed_since = 0.0
        self._since: dict[tuple[str, ...], float] = {}  # what is wrong → since when
        self._revisions: deque[int] = deque(maxlen=BUSY)
        self._base: dict[str, int] = {}  # service → healthy tasks that it had, and was to have at all times since
        self._allowed = Lately(OVERTAKEN)  # service → how many may be away
        cluster.truth.listeners.append(self._changed)

    def _changed(self, kind: str, object_id: str, old: object, new: object) -> None:
        if isinstance(old, pb.Service):
            self._allowed.replaced(object_id, _allowance(old))
        if isinstance(new, pb.Service) and object_id in self._base:
            self._base[object_id] = min(self._base[object_id], new.spec.replicas)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            if not self._is_managed():
                self._managed_since = world_time() + 1
            self._look(world_time())
            self._floor()
            self._writes()
            self._cluster.writers.look()

    def floor(self, service_id: str) -> int:
        """How many healthy tasks the service must have now, at least; 0 when nobody can tell."""
        service = self._truth.services.get(service_id)
        base = self._base.get(service_id, 0)
        if service is None or service.removing:
            return 0
        return max(0, min(base, service.spec.replicas) - _allowance(service))

    def _look(self, now: float) -> None:
        """What may be wrong for a while, and how long it has been."""
        wrong: dict[tuple[str, ...], float] = {}
        for name, text, longest, about in self._all():
            key = (name, text)
            since = wrong[key] = self._since.get(key, now)
            start = since if name == "one leader at a time" else max(since, self._managed_since)
            if now - start > longest:
                self._findings.add(name, f"{text}, since {since:.0f}", *about)
        self._since = wrong

    def _all(self) -> list[Wrong]:
        return [*self._balancers(), *self._redirects(), *self._drained(), *self._leaders(), *self._ill()]

    def _balancers(self) -> list[Wrong]:
        """No balancer of a live node has a task that is not healthy."""
        nodes = self._truth.nodes
        right = {
            (task.service_id, address.address)
            for task in self._truth.tasks.values()
            if not task.addresses_free and serves(task, nodes)
            for address in task.addresses
        }
        unfit = {
            (task.service_id, address.address): "which is unhealthy" if is_ill else "whose node is down"
            for task in self._truth.tasks.values()
            if task.status.state == pb.TASK_STATE_RUNNING and not task.leaving
            for is_ill in (task.status.health == pb.HEALTH_UNHEALTHY,)
            if is_ill or (task.node_id in nodes and nodes[task.node_id].state == pb.NODE_STATE_DOWN)
            for address in task.addresses
        }
        found = []
        for node in nodes.values():
            host = self._hosts.get(node.id)
            if host is None or host.state is None or not is_live(node):
                continue
            for service in host.state.services.values():
                for address in service.backends:
                    if (service.service_id.removeprefix("host:"), address) not in right:
                        text = f"{host.name} has {address} of {service.name}"
                        about = (node.id, service.service_id)
                        name = "no balancer of a live node has a task that is not healthy"
                        known = unfit.get((service.service_id, address), "")
                        text += f", {known}" if known else ""
                        found.append((name, text, KNOWN if known else STALE, about))
        return found

    def _redirects(self) -> list[Wrong]:
        """Once its owner has confirmed that it leaves, until every registered node has."""
        found = []
        for node_id, host in self._hosts.items():
            if host.state is None or node_id not in self._truth.nodes:
                continue
            for task_id in host.left:
                task = self._truth.tasks.get(task_id)
                if task is None or not task.leaving or task.addresses_free or task.node_id != node_id:
                    continue
                if task.status.state == pb.TASK_STATE_ORPHANED:
                    continue
                for address in task.addresses:
                    if address.address not in host.redirects:
                        text = f"{task_id} at {address.address} is not redirected on {host.name}"
                        name = "a task that leaves is redirected until every node has confirmed"
                        found.append((name, text, REDIRECTED, (task_id, node_id)))
        return found

    def _drained(self) -> list[Wrong]:
        """A drained node is emptied, where the services can run elsewhere at all."""
        truth, found = self._truth, []
        active = [
            node
            for node in truth.nodes.values()
            if node.spec.availability == spec.NODE_AVAILABILITY_ACTIVE and node.state == pb.NODE_STATE_READY
        ]
        if len(active) < 2:
            return []
        for node in truth.nodes.values():
            if node.spec.availability != spec.NODE_AVAILABILITY_DRAIN or node.state != pb.NODE_STATE_READY:
                continue
            for task in truth.tasks_of_node(node.id):
                service = truth.services.get(task.service_id)
                if is_over(task) or not is_wanted(task) or service is None or not _is_free(service):
                    continue
                rollout = truth.rollouts.get(service.rollout_id)
                still = rollout is not None and rollout.state in (
                    pb.ROLLOUT_STATE_COMPLETED,
                    pb.ROLLOUT_STATE_ROLLED_BACK,
                )
                if still and self._calm.seconds(service.id) > 30 and specs.is_sound(service.spec):
                    text = f"{node.id} still has {task.id}"
                    found.append(("a drained node is emptied", text, EMPTIED, (task.id, node.id)))
        return found

    def _leaders(self) -> list[Wrong]:
        """Not counting those that cannot know the time."""
        leading = [
            manager.host.name
            for manager in self._cluster.managers.values()
            if manager.leads and not manager.party.frozen and not manager.party.deaf
        ]
        return [("one leader at a time", f"{leading} lead", TWO_LEADERS, ())] if len(leading) > 1 else []

    def _ill(self) -> list[Wrong]:
        """A task whose probe fails leaves the balancers."""
        now, found = world_time(), []
        for name, host in self._cluster.hosts.items():
            agent = self._cluster.agents.get(name)
            if agent is None or agent.party.frozen or host.troubles.work_slow:
                continue
            for task_id, container in host.containers.items():
                task = self._truth.tasks.get(task_id)
                ill = container.running and now < container.sick_until and container.kind != "flaky"
                if (
                    ill
                    and task is not None
                    and task.spec.container.HasField("probe")
                    and serves(task, self._truth.nodes)
                ):
                    text = f"{task_id} on {name} fails its probe"
                    found.append(("what fails its probe leaves the balancers", text, ILL, (task_id,)))
        return found

    def _writes(self) -> None:
        """Loops that undo each other's work let time pass, and never end."""
        now = self._cluster.store.revision
        before = self._revisions[0] if self._revisions else now
        self._revisions.append(now)
        if now - before > MOST_WRITES:
            self._findings.add("work comes to an end", f"{now - before} revisions in {len(self._revisions)} s")

    def _floor(self) -> None:
        """Healthy tasks ≥ replicas - max unavailable, outside of faults."""
        for service in self._truth.services.values():
            if service.spec.mode == spec.SERVICE_MODE_GLOBAL or service.removing:
                continue
            healthy = sum(serves(task, self._truth.nodes) for task in self._truth.tasks_of_service(service.id))
            replicas = service.spec.replicas
            if self._calm.seconds(service.id) < SETTLES:
                self._base.pop(service.id, None)
                continue
            base = min(self._base.get(service.id, 0), replicas)
            allowance = self._allowed.most(service.id, _allowance(service))
            if healthy < base - allowance:
                self._findings.add(
                    "healthy tasks ≥ replicas - max unavailable, outside of faults",
                    f"{service.spec.name}: {healthy} of {base}, and {allowance} may be away",
                    service.id,
                )
            self._base[service.id] = max(base, min(healthy, replicas))


def _allowance(service: pb.Service) -> int:
    """How many may be away by what is asked for now."""
    policies = (service.spec.update, service.spec.rollback, service.previous_spec.update)
    stops = any(policy.order == spec.UPDATE_ORDER_STOP_FIRST for policy in policies)
    if not stops and not service.spec.task.host_ports and not service.spec.task.exclusive:
        return 0
    return max(policy.parallelism or service.spec.replicas or 1 for policy in policies)


def _is_free(service: pb.Service) -> bool:
    """It runs anywhere."""
    task = service.spec.task
    return not (
        task.host_ports
        or task.placement.constraints
        or task.placement.max_per_node
        or task.resources.reserve_nano_cpus
        or service.spec.mode == spec.SERVICE_MODE_GLOBAL
        or service.removing
    )
