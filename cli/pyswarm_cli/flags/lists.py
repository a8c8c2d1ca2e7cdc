"""The flags that are lists: replaced by deploy and create, added to and removed from by update."""

from __future__ import annotations

import os
from typing import Any

from pyswarm_cli.flags.model import ListFlag
from pyswarm_cli.parse import mounts, pairs, ports
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

Service = spec.ServiceSpec


def _env(text: str) -> str | None:
    return pairs.env(text, os.environ)


def _put_env(service: Service, values: list[Any]) -> None:
    service.task.container.env[:] = [value for value in values if value is not None]


def _env_key(entry: str | None) -> str:
    return (entry or "").partition("=")[0]


def _same_port(port: spec.Port, removed: tuple[int, int | None]) -> bool:
    """80 means both protocols, 80/udp the one."""
    target, protocol = removed
    return port.target == target and protocol in (None, port.protocol)


def _put_ports(service: Service, values: list[Any]) -> None:
    del service.ports[:]
    service.ports.extend(values)


def _put_mounts(service: Service, values: list[Any]) -> None:
    del service.task.container.mounts[:]
    service.task.container.mounts.extend(values)


def _put_networks(service: Service, values: list[Any]) -> None:
    del service.task.networks[:]
    service.task.networks.extend(values)


def _put_hosts(service: Service, values: list[Any]) -> None:
    del service.task.container.hosts[:]
    service.task.container.hosts.extend(values)


def _put_ulimits(service: Service, values: list[Any]) -> None:
    del service.task.container.ulimits[:]
    service.task.container.ulimits.extend(values)


def _same_host(entry: spec.HostEntry, removed: str) -> bool:
    name, colon, address = removed.partition(":")
    return entry.hostname == name and (not colon or entry.address == address)


def _strings(name: str, help_: str, parse: Any, metavar: str, field: str, short: str = "") -> ListFlag:
    """A repeated string. `field`: where, from the task's spec on."""
    *path, last = field.split(".")

    def holder(service: Service) -> Any:
        message: Any = service.task
        for part in path:
            message = getattr(message, part)
        return message

    def put(service: Service, values: list[Any]) -> None:
        getattr(holder(service), last)[:] = values

    return ListFlag(
        name, help_, parse, metavar, lambda s: list(getattr(holder(s), last)), put, lambda v: v, parse, short=short
    )


def _map(name: str, help_: str, parse: Any, metavar: str, field: str, short: str = "") -> ListFlag:
    """A map. `field`: where, from the service's spec on."""

    def at(service: Service) -> Any:
        message: Any = service
        for part in field.split("."):
            message = getattr(message, part)
        return message

    def put(service: Service, values: list[Any]) -> None:
        current = at(service)
        current.clear()
        current.update(dict(values))

    return ListFlag(name, help_, parse, metavar, lambda s: list(at(s).items()), put, lambda v: v[0], short=short)


def _group(text: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise InvalidInput(f"'{text}' is not a group's name or number")
    return text


def _address(text: str) -> str:
    return pairs.ip(text, "--dns")


def _domain(text: str) -> str:
    if not text or any(c.isspace() for c in text):
        raise InvalidInput(f"'{text}' is not a search domain")
    return text


LISTS: tuple[ListFlag, ...] = (
    ListFlag(
        "env", "An environment variable; KEY alone passes your own value on.", _env, "KEY[=VALUE]",
        lambda s: list(s.task.container.env), _put_env, _env_key, short="e",
    ),
    _map("label", "A label of the service.", pairs.label, "KEY=VALUE", "labels", "l"),
    _map("container-label", "A label of the containers.", pairs.label, "KEY=VALUE", "task.container.labels"),
    _strings("constraint", "Only nodes like node.labels.zone==a.", pairs.constraint, "EXPRESSION",
             "placement.constraints"),
    _strings("placement-pref", "Spread over values of a label: spread=node.labels.zone.", pairs.preference,
             "SPREAD", "placement.preferences"),
    ListFlag(
        "network", "A network to join: NAME, or name=NAME,alias=ALIAS.", pairs.network, "NETWORK",
        lambda s: list(s.task.networks), _put_networks, lambda n: n.network_id,
    ),
    ListFlag(
        "publish", "A port to publish: 8080:80[/udp], or published=8080,target=80,mode=ingress|host.", ports.ports,
        "PORT", lambda s: list(s.ports), _put_ports, lambda p: (p.target, p.protocol, p.published), ports.target,
        _same_port, "p", True,
    ),
    ListFlag(
        "mount", "A mount: type=bind|volume|tmpfs,source=…,target=…[,readonly].", mounts.mount, "MOUNT",
        lambda s: list(s.task.container.mounts), _put_mounts, lambda m: m.target,
    ),
    ListFlag(
        "host", "A line of /etc/hosts: NAME:ADDRESS.", pairs.host, "NAME:ADDRESS",
        lambda s: list(s.task.container.hosts), _put_hosts, lambda h: (h.hostname, h.address), str, _same_host,
    ),
    _strings("dns", "A name server for names outside the cluster.", _address, "ADDRESS", "container.dns.servers"),
    _strings("dns-search", "A search domain.", _domain, "DOMAIN", "container.dns.search"),
    _strings("dns-option", "An option of resolv.conf.", _domain, "OPTION", "container.dns.options"),
    _strings("group", "A supplementary group.", _group, "GROUP", "container.groups"),
    ListFlag(
        "ulimit", "A ulimit: nofile=1024:2048.", pairs.ulimit, "NAME=SOFT[:HARD]",
        lambda s: list(s.task.container.ulimits), _put_ulimits, lambda u: u.name,
    ),
    _map("sysctl", "A sysctl of the container's namespaces.", pairs.sysctl, "KEY=VALUE", "task.container.sysctls"),
)  # fmt: skip
