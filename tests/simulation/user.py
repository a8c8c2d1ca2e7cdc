"""The user: random requests to whichever manager answers, by the same services that the command line calls."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.simulation import specs
from tests.simulation.checks.stored import StoredChecks
from tests.simulation.cluster import Cluster, certificate
from tests.simulation.streams import Aborted, Context

from pyswarm_core.errors import OutcomeUnknown, PyswarmError, StoreUnavailable
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.servicer import ControlServicer

T = TypeVar("T")

HOST = "user"  # where the user sits, on the network
MOST_SERVICES, LEAST_SERVICES = 8, 5
PATIENCE = 20.0  # seconds for one call
NAMES = ("web", "api", "gauge", "db", "cache", "mail", "guard", "jobs", "auth", "shop")


class Gone(Exception):
    """The manager that was asked has died, or nobody answers."""


class User:
    def __init__(self, cluster: Cluster, checks: StoredChecks) -> None:
        self._cluster = cluster
        self._checks = checks
        self._context = Context(certificate("user", "client"))
        self.results: Counter[str] = Counter()
        self.asked = 0  # whatever came of it
        self._removed: set[str] = set()  # services that may be removed yet, late, though nobody has said so
        self.actions: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "deploy": self.deploy,
            "update": self.update,
            "scale": self.scale,
            "roll back": self.rollback,
            "remove": self.remove,
            "drain": self.drain,
            "activate": self.activate,
            "pause": self.pause,
            "relabel": self.relabel,
            "make a network": self.make_network,
            "remove a network": self.remove_network,
            "remove a node": self.remove_node,
            "two at once": self.two_at_once,
            "change one's mind": self.change_mind,
        }

    # ---- services ----

    async def deploy(self, rng: random.Random) -> None:
        """Another service; an update when there are enough."""
        services = self._cluster.truth.services
        taken = {service.spec.name for service in services.values()}
        free = [(i, name) for i, name in enumerate(NAMES) if name not in taken]
        if len(services) >= MOST_SERVICES or not free:
            await self.update(rng)
            return
        number, name = rng.choice(free)
        networks = [n.spec.name for n in self._cluster.truth.networks.values() if n.spec.name != "default"]
        await self.create(specs.service(name, number, sorted(networks), len(self._cluster.hosts), rng), rng)

    async def create(self, wanted: spec.ServiceSpec, rng: random.Random) -> None:
        request = control.CreateServiceRequest(spec=wanted)
        self._acknowledged(await self._call(rng, lambda c: c.CreateService(request, self._context)))

    async def two_at_once(self, rng: random.Random) -> None:
        """Two people ask for services of one name or one port, of two managers, at the same moment."""
        taken = {service.spec.name for service in self._cluster.truth.services.values()}
        free = [(i, name) for i, name in enumerate(NAMES) if name not in taken and not name.startswith("g")]
        if len(free) < 2 or len(taken) >= MOST_SERVICES:
            return
        (number, name), (_, other) = rng.sample(free, 2)
        if rng.random() < 0.5:
            other = name
        wanted = [specs.service(one, number, [], len(self._cluster.hosts), rng) for one in (name, other)]
        for one in wanted:
            if not one.ports:
                one.ports.add(target=80, published=8000 + number)
            one.ports[0].mode = spec.PUBLISH_MODE_INGRESS  # on hosts both would be admitted, and have no room there
            one.endpoint_mode = spec.ENDPOINT_MODE_VIP
        await asyncio.gather(*(self.create(one, rng) for one in wanted))

    async def update(self, rng: random.Random, *, sound: bool = False, name: str = "") -> None:
        service = self._some_service(rng, name)
        if service is None:
            return
        wanted = spec.ServiceSpec()
        wanted.CopyFrom(service.spec)
        specs.change(wanted, rng, sound=sound)
        version = service.version if rng.random() < 0.3 else 0
        request = control.UpdateServiceRequest(ref=wanted.name, version=version, spec=wanted, resolve_image=True)
        self._acknowledged(await self._call(rng, lambda c: c.UpdateService(request, self._context)))

    async def change_mind(self, rng: random.Random) -> None:
        """Another change of a service whose last one is still under way."""
        service = self._some_service(rng, "")
        if service is None:
            return
        name = service.spec.name
        for _ in range(rng.choice((2, 2, 3))):
            await self.update(rng, name=name)
            await asyncio.sleep(rng.choice((0.05, 0.3, 1.0, 3.0)))

    async def change_image(self, name: str, image: str, rng: random.Random) -> None:
        service = self._some_service(rng, name)
        wanted = spec.ServiceSpec()
        wanted.CopyFrom(service.spec)
        wanted.task.container.image, wanted.task.container.digest = image, ""
        request = control.UpdateServiceRequest(ref=name, version=service.version, spec=wanted)
        self._acknowledged(await self._call(rng, lambda c: c.UpdateService(request, self._context)))

    async def scale(self, rng: random.Random) -> None:
        service = self._some_service(rng, "")
        if service is None or service.spec.mode == spec.SERVICE_MODE_GLOBAL:
            return
        replicas = rng.choice((1, 2, 3, 4, 5))
        if service.spec.task.host_ports:
            replicas = min(replicas, len(self._cluster.hosts) - 2)
        targets = [control.ScaleServicesRequest.Target(ref=service.spec.name, replicas=replicas)]
        request = control.ScaleServicesRequest(targets=targets)
        response = await self._call(rng, lambda c: c.ScaleServices(request, self._context))
        if response is not None:
            self._acknowledged(response.services[0])

    async def rollback(self, rng: random.Random) -> None:
        service = self._some_service(rng, "")
        if service is not None:
            request = control.Ref(ref=service.id)
            self._acknowledged(await self._call(rng, lambda c: c.RollbackService(request, self._context)))

    async def remove(self, rng: random.Random) -> None:
        service = self._some_service(rng, "")
        services = self._cluster.truth.services.values()
        left = sum(not one.removing and one.id not in self._removed for one in services)
        if service is None or left <= LEAST_SERVICES:
            await self.deploy(rng)
            return
        request = control.Ref(ref=service.id)
        self._removed.add(service.id)
        if await self._call(rng, lambda c: c.RemoveService(request, self._context)) is not None:
            stored = self._cluster.truth.services.get(service.id)
            if stored is not None and not stored.removing:
                self._lost(f"the removal of {service.spec.name}", service.id)

    # ---- nodes ----

    async def drain(self, rng: random.Random) -> None:
        await self._availability(rng, spec.NODE_AVAILABILITY_DRAIN)

    async def pause(self, rng: random.Random) -> None:
        await self._availability(rng, spec.NODE_AVAILABILITY_PAUSE)

    async def activate(self, rng: random.Random) -> None:
        await self._availability(rng, spec.NODE_AVAILABILITY_ACTIVE)

    async def _availability(self, rng: random.Random, wanted: spec.NodeAvailability.ValueType) -> None:
        nodes = sorted(self._cluster.truth.nodes.values(), key=lambda node: node.id)
        away = [node for node in nodes if node.spec.availability != spec.NODE_AVAILABILITY_ACTIVE]
        if wanted != spec.NODE_AVAILABILITY_ACTIVE and len(away) >= 2:
            wanted = spec.NODE_AVAILABILITY_ACTIVE
        chosen = away if wanted == spec.NODE_AVAILABILITY_ACTIVE and away else nodes
        if chosen:
            await self._node(rng, rng.choice(chosen).id, lambda node: setattr(node, "availability", wanted))

    async def set_availability(self, node_id: str, wanted: spec.NodeAvailability.ValueType, rng: random.Random) -> None:
        await self._node(rng, node_id, lambda node: setattr(node, "availability", wanted))

    async def relabel(self, rng: random.Random) -> None:
        nodes = sorted(self._cluster.truth.nodes)
        if nodes:
            zone = rng.choice("aaab")
            await self._node(rng, rng.choice(nodes), lambda node: node.labels.update({"zone": zone}))

    async def set_node(self, node_id: str, rng: random.Random) -> None:
        """As it was at the beginning."""

        def reset(node: spec.NodeSpec) -> None:
            node.availability = spec.NODE_AVAILABILITY_ACTIVE
            node.labels["zone"] = "ab"[int(node_id[-1]) % 2]

        await self._node(rng, node_id, reset)

    async def _node(self, rng: random.Random, node_id: str, change: Callable[[spec.NodeSpec], Any]) -> None:
        node = self._cluster.truth.nodes.get(node_id)
        if node is None:
            return
        wanted = spec.NodeSpec()
        wanted.CopyFrom(node.spec)
        change(wanted)
        request = control.UpdateNodeRequest(ref=node_id, spec=wanted)
        await self._call(rng, lambda c: c.UpdateNode(request, self._context))

    async def remove_node(self, rng: random.Random) -> None:
        """Without a word to it: it comes back as a new one."""
        workers = [
            host.node_id for name, host in self._cluster.hosts.items() if name not in self._cluster.manager_hosts
        ]
        node_id = rng.choice(workers)
        if node_id in self._cluster.truth.nodes:
            request = control.RemoveNodeRequest(ref=node_id, force=True)
            await self._call(rng, lambda c: c.RemoveNode(request, self._context))

    # ---- networks ----

    async def make_network(self, rng: random.Random) -> None:
        networks = self._cluster.truth.networks
        if len(networks) < 4:
            subnet = rng.choice(("", "", "10.77.0.0/24"))
            wanted = spec.NetworkSpec(name=f"net-{rng.randrange(4)}", subnet=subnet)
            request = control.CreateNetworkRequest(spec=wanted)
            await self._call(rng, lambda c: c.CreateNetwork(request, self._context))

    async def remove_network(self, rng: random.Random) -> None:
        networks = sorted(n.id for n in self._cluster.truth.networks.values() if n.spec.name != "default")
        if networks:
            request = control.Ref(ref=rng.choice(networks))
            await self._call(rng, lambda c: c.RemoveNetwork(request, self._context))

    # ---- asking ----

    def _some_service(self, rng: random.Random, name: str) -> Any:
        services = [s for s in self._cluster.truth.services.values() if not s.removing and s.spec.name.startswith(name)]
        services.sort(key=lambda service: service.id)
        return rng.choice(services) if services else None

    async def _call(self, rng: random.Random, ask: Callable[[ControlServicer], Awaitable[T]]) -> T | None:
        """Some managers in turn; None when it was refused, or nobody can tell."""
        self.asked += 1
        names = list(self._cluster.manager_hosts)
        rng.shuffle(names)
        for name in names:
            try:
                answer = await self._ask(name, ask)
            except (StoreUnavailable, Gone):
                self.results["not now"] += 1
                continue
            except OutcomeUnknown:
                self.results["unknown"] += 1
                return None
            except (PyswarmError, Aborted) as error:
                self.results["refused"] += 1
                self._cluster.trace.add(f"the user is refused: {error}")
                return None
            except Exception as error:
                self._cluster.findings.add("a call fails with a sentence only", f"{error!r}")
                return None
            self.results["done"] += 1
            return answer
        return None

    async def _ask(self, name: str, ask: Callable[[ControlServicer], Awaitable[T]]) -> T:
        cluster = self._cluster
        manager = cluster.managers.get(name)
        if manager is None or not cluster.net.linked(HOST, name):
            await asyncio.sleep(0.5)
            raise Gone
        servicer = manager.core.control

        async def work() -> T:
            return await ask(servicer)

        task = manager.party.spawn(work())
        done, _ = await asyncio.wait((task,), timeout=PATIENCE)
        if not done:
            task.cancel()
            raise OutcomeUnknown("it takes too long")
        if task.cancelled():
            raise OutcomeUnknown("the manager has died")
        return task.result()

    def _acknowledged(self, response: control.ServiceResponse | None) -> None:
        if response is None:
            return
        service, rollout = response.service, response.rollout
        if not self._checks.knows_rollout(rollout.id):
            self._lost(f"the rollout of {service.spec.name}", service.id)
        stored = self._cluster.truth.services.get(service.id)
        if stored is not None and stored.spec_version < service.spec_version:
            self._lost(f"the new spec of {service.spec.name}", service.id)

    def _lost(self, what: str, *about: str) -> None:
        self._cluster.findings.add(
            "an acknowledged deploy survives", f"{what} was acknowledged and is not stored", *about
        )
