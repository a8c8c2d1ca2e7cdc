"""The keys beside `services`: which networks and volumes a file declares. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyswarm_cli.compose.loader import Entry, Map, Scalar, Seq, Value
from pyswarm_cli.compose.reader import Reader
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

_KEYS = ("services", "networks", "volumes", "version", "name")
_REFUSED = {
    "configs": "this version has no configs; mount a file instead",
    "secrets": "this version has no secrets; mount a file instead",
    "include": "write the services into this file",
    "models": "there are none here",
}


@dataclass(slots=True)
class TopLevel:
    """`networks` and `volumes`: the file's name for each → the cluster's."""

    networks: dict[str, str] = field(default_factory=dict)
    own_networks: list[spec.NetworkSpec] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)


def check(reader: Reader, top: Map) -> None:
    """What concerns the whole file."""
    for entry in top.entries.values():
        if entry.key in _REFUSED and not _empty(entry.value):
            reader.fail(entry.line, f"{entry.key} is not supported: {_REFUSED[entry.key]}")
        if entry.key not in _KEYS and entry.key not in _REFUSED and not entry.key.startswith("x-"):
            reader.unknown(entry, "the file", _KEYS)
    if "services" not in top.entries:
        reader.fail(top.line, "the file has no services")
    services = reader.map(top.entries["services"].value, "services")
    if not services.entries:
        reader.fail(top.entries["services"].line, "the file has no services")


def read(reader: Reader, top: Map) -> TopLevel:
    result = TopLevel()
    for entry in _entries(reader, top, "networks"):
        _network(reader, entry, result)
    for entry in _entries(reader, top, "volumes"):
        result.volumes[entry.key] = _volume(reader, entry)
    return result


def _network(reader: Reader, entry: Entry, result: TopLevel) -> None:
    where = f"networks.{entry.key}"
    given: dict[str, str] = {}
    labels: dict[str, str] = {}

    def name(value: Value, at: str) -> None:
        given["name"] = reader.text(value, at)

    def external(value: Value, at: str) -> None:
        given["external"] = "yes" if reader.boolean(value, at) else ""

    def driver(value: Value, at: str) -> None:
        if reader.text(value, at) not in ("overlay", "default", ""):
            reader.fail(value.line, f"{at} must be overlay: pyswarm has no other kind of network")

    def label(value: Value, at: str) -> None:
        labels.update({key: text or "" for key, text, _ in reader.pairs(value, at)})

    def ipam(value: Value, at: str) -> None:
        given["subnet"] = _subnet(reader, value, at)

    handlers = {"name": name, "external": external, "driver": driver, "labels": label, "ipam": ipam}
    refused = {
        "driver_opts": "pyswarm's networks have no options",
        "internal": "every network can reach the outside",
        "attachable": "only tasks of services join a network",
        "enable_ipv4": "networks are IPv4",
        "enable_ipv6": "networks are IPv4",
    }
    reader.walk(entry.value, where, handlers, refused)
    real = given.get("name") or entry.key
    result.networks[entry.key] = real
    if not given.get("external") and real != "default":
        result.own_networks.append(spec.NetworkSpec(name=real, subnet=given.get("subnet", ""), labels=labels))


def _subnet(reader: Reader, value: Value, where: str) -> str:
    found: list[str] = []

    def config(inner: Value, at: str) -> None:
        for item in reader.items(inner, at):
            reader.walk(item, at, {"subnet": subnet}, {"gateway": "the gateway is given", "ip_range": "give a subnet"})

    def subnet(inner: Value, at: str) -> None:
        found.append(reader.parsed(inner, at, _cidr))
        if len(found) > 1:
            reader.fail(inner.line, f"{where} has more than one subnet; a network has one")

    def driver(inner: Value, at: str) -> None:
        if reader.text(inner, at) != "default":
            reader.fail(inner.line, f"{at} must be default")

    reader.walk(value, where, {"config": config, "driver": driver}, {"options": "there are none"})
    return found[0] if found else ""


def _volume(reader: Reader, entry: Entry) -> str:
    given: dict[str, str] = {}

    def name(value: Value, at: str) -> None:
        given["name"] = reader.text(value, at)

    def driver(value: Value, at: str) -> None:
        if reader.text(value, at) not in ("local", ""):
            reader.fail(value.line, f"{at} must be local: pyswarm has no other volumes")

    refused = {
        "external": "each node makes a volume when it first needs it; use name: to choose which",
        "driver_opts": "local volumes have no options",
        "labels": "volumes have no labels",
    }
    reader.walk(entry.value, f"volumes.{entry.key}", {"name": name, "driver": driver}, refused)
    return given.get("name") or entry.key


def _entries(reader: Reader, top: Map, key: str) -> list[Entry]:
    return list(reader.map(top.entries[key].value, key).entries.values()) if key in top.entries else []


def _empty(value: Value) -> bool:
    if isinstance(value, Scalar):
        return value.is_null
    return not (value.items if isinstance(value, Seq) else value.entries)


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError:
        raise InvalidInput(f"'{text}' is not an IPv4 range; write 10.20.0.0/24") from None


def real_name(reader: Reader, names: Mapping[str, str], name: str, line: int, what: str) -> str:
    """A service's network or volume must be declared, as in Compose."""
    if name not in names:
        declared = ", ".join(names) or "none"
        reader.fail(line, f"the {what} '{name}' is not declared under {what}s (declared: {declared}); add it there")
    return names[name]
