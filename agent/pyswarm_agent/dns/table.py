"""Which addresses a name has, for the task that asks. Pure; fed by the same values as the balancer.

A name is found on the networks that the asker shares, in the order in which its task has them, and the first network
that knows it answers: an address of another one could not be reached from there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

TASKS = "tasks."


@dataclass(frozen=True, slots=True)
class Scope:
    """Who asks: what it can reach, and what its DNS configuration says."""

    networks: tuple[str, ...]
    search: tuple[str, ...] = ()  # suffixes without leading dots
    servers: tuple[str, ...] = ()  # for names outside of the cluster; () = the host's


@dataclass(frozen=True, slots=True)
class Target:
    """Of an SRV record."""

    name: str
    port: int
    address: str


@dataclass(slots=True)
class _Service:
    """One service as it was indexed."""

    message: ep.ServiceEndpoints
    names: frozenset[str]
    addresses: tuple[str, ...]


@dataclass(slots=True)
class Table:
    """`update` costs what has changed, but for one look at each service."""

    _services: dict[str, _Service] = field(default_factory=dict)
    _by_name: dict[str, dict[str, ep.ServiceEndpoints]] = field(default_factory=dict)
    _by_address: dict[str, dict[str, ep.ServiceEndpoints]] = field(default_factory=dict)
    _scopes: dict[str, Scope] = field(default_factory=dict)
    _tasks: Mapping[str, pb.Task] = field(default_factory=dict)
    _subnets: tuple[ipaddress.IPv4Network, ...] = ()
    _networks: tuple[str, ...] = ()

    def update(self, inputs: NetworkInputs) -> None:
        for service_id in self._services.keys() - inputs.endpoints.keys():
            self._drop(service_id)
        for service_id, message in inputs.endpoints.items():
            known = self._services.get(service_id)
            if known is None or known.message is not message:
                self._drop(service_id)
                self._add(service_id, message)
        self._scopes = {a.address: _scope(task) for task in inputs.tasks.values() for a in task.addresses}
        self._networks = tuple(sorted(inputs.networks))
        self._subnets = tuple(ipaddress.IPv4Network(n.spec.subnet) for n in inputs.networks.values() if n.spec.subnet)

    def scope(self, source: str, *, is_host: bool = False) -> Scope | None:
        """Of whoever asks from this address; the host itself reaches every network. None: nobody of ours."""
        return Scope(self._networks) if is_host else self._scopes.get(source)

    # ---- questions ----

    def knows(self, scope: Scope, name: str) -> bool:
        return self.addresses(scope, name) is not None

    def addresses(self, scope: Scope, name: str) -> list[str] | None:
        """None: no such name here. An empty list: the name is known and has no address now."""
        for bare in _bare(scope, name):
            for network in scope.networks:
                found = self._on(network, bare)
                if found is not None:
                    return found
        return None

    def targets(self, scope: Scope, name: str) -> list[Target] | None:
        """SRV: `tasks.web` and `web` name all ports, `_tcp.web` and `_8080._tcp.web` those that fit."""
        for bare in _bare(scope, name):
            labels = bare.split(".")
            wanted = [label[1:] for label in labels if label.startswith("_")]
            service_name = ".".join(label for label in labels if not label.startswith("_")).removeprefix(TASKS)
            for network in scope.networks:
                services = self._named(network, service_name)
                if services:
                    return [t for s in services for t in _targets(s, network, wanted)]
        return None

    def name_of(self, scope: Scope, address: str) -> str | None:
        """The service that has this VIP, or the task that has this address."""
        for network in scope.networks:
            for service in self._by_address.get(address, {}).values():
                if any(v.network_id == network and v.address == address for v in service.vips):
                    return service.name
                for endpoint in service.endpoints:
                    if _address(endpoint, network) == address:
                        return endpoint.task_name
        return None

    def is_ours(self, address: str) -> bool:
        """In one of the cluster's networks, so nobody else can tell its name."""
        ip = ipaddress.IPv4Address(address)
        return any(ip in subnet for subnet in self._subnets)

    # ---- inside ----

    def _on(self, network: str, name: str) -> list[str] | None:
        if name.startswith(TASKS):
            services = self._named(network, name.removeprefix(TASKS))
            return _all_addresses(services, network) if services else None
        services = self._named(network, name)
        if services:
            vips = [v.address for s in services if _has_vip(s) for v in s.vips if v.network_id == network]
            return vips + _all_addresses((s for s in services if not _has_vip(s)), network)
        return self._task(network, name)

    def _named(self, network: str, name: str) -> list[ep.ServiceEndpoints]:
        return [
            service
            for service in self._by_name.get(name, {}).values()
            for attachment in service.networks
            if attachment.network_id == network
            and (service.name.lower() == name or name in (alias.lower() for alias in attachment.aliases))
        ]

    def _task(self, network: str, name: str) -> list[str] | None:
        """web.1: the task that serves in that slot; while it is replaced there may be two, and the newer one serves."""
        service_name, _, slot = name.rpartition(".")
        if not slot:
            return None
        known = False
        for service in self._by_name.get(service_name, {}).values():
            of_name = [e for e in service.endpoints if e.task_name.lower() == name and _address(e, network)]
            known = known or bool(of_name)
            serving = [e for e in of_name if e.state == ep.ENDPOINT_STATE_SERVING] or of_name
            if serving:
                return [_address(e, network) for e in serving]
        return [] if known else None

    def _add(self, service_id: str, message: ep.ServiceEndpoints) -> None:
        names = {message.name.lower(), *(a.lower() for n in message.networks for a in n.aliases)}
        addresses = {v.address for v in message.vips} | {a.address for e in message.endpoints for a in e.addresses}
        for name in names:
            self._by_name.setdefault(name, {})[service_id] = message
        for address in addresses:
            self._by_address.setdefault(address, {})[service_id] = message
        self._services[service_id] = _Service(message, frozenset(names), tuple(addresses))

    def _drop(self, service_id: str) -> None:
        known = self._services.pop(service_id, None)
        if known is None:
            return
        for index, keys in ((self._by_name, known.names), (self._by_address, known.addresses)):
            for key in keys:
                index[key].pop(service_id)
                if not index[key]:
                    del index[key]


def _scope(task: pb.Task) -> Scope:
    dns = task.spec.container.dns
    search = tuple(s.strip(".").lower() for s in dns.search if s.strip("."))
    return Scope(tuple(a.network_id for a in task.addresses), search, tuple(dns.servers))


def _bare(scope: Scope, name: str) -> Iterable[str]:
    """The name, then the name without a search suffix that the asker's resolver has put behind it."""
    name = name.rstrip(".").lower()
    yield name
    for suffix in scope.search:
        if name.endswith("." + suffix):
            yield name.removesuffix("." + suffix)


def _has_vip(service: ep.ServiceEndpoints) -> bool:
    return service.mode == spec.ENDPOINT_MODE_VIP and bool(service.vips)


def _address(endpoint: ep.Endpoint, network: str) -> str:
    return next((a.address for a in endpoint.addresses if a.network_id == network), "")


def _all_addresses(services: Iterable[ep.ServiceEndpoints], network: str) -> list[str]:
    found = (_address(e, network) for s in services for e in s.endpoints if e.state == ep.ENDPOINT_STATE_SERVING)
    return list(dict.fromkeys(a for a in found if a))


def _targets(service: ep.ServiceEndpoints, network: str, wanted: Sequence[str]) -> Iterable[Target]:
    protocols = {w for w in wanted if w in ("tcp", "udp")}
    numbers = {int(w) for w in wanted if w.isdigit()}
    ports = {
        port.target
        for port in service.ports
        if (not protocols or spec.Protocol.Name(port.protocol).removeprefix("PROTOCOL_").lower() in protocols)
        and (not numbers or port.target in numbers)
    }
    for endpoint in service.endpoints:
        address = _address(endpoint, network)
        if endpoint.state == ep.ENDPOINT_STATE_SERVING and address:
            yield from (Target(endpoint.task_name, port, address) for port in sorted(ports))
