"""Published ports: 8080:80, 8080:80/udp, 8000-8002:80-82, 80, published=8080,target=80,mode=host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from pyswarm_cli.parse.fields import fields
from pyswarm_cli.parse.numbers import whole
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

T = TypeVar("T")

PROTOCOLS = {"tcp": spec.PROTOCOL_TCP, "udp": spec.PROTOCOL_UDP}
MODES = {"ingress": spec.PUBLISH_MODE_INGRESS, "host": spec.PUBLISH_MODE_HOST}
_SHORT = re.compile(r"(?:(?P<published>[^:/]*):)?(?P<target>[^:/]+)(?:/(?P<protocol>[^/:]*))?")


def ports(text: str) -> list[spec.Port]:
    """One port, or as many as a range has. `published` 0 = the cluster picks one."""
    if "=" in text:
        return _long(text)
    if text.count(":") > 1:
        raise InvalidInput(
            f"the port '{text}' names a host address, but published ports answer on every address of every host; "
            "write PUBLISHED:TARGET"
        )
    match = _SHORT.fullmatch(text)
    if match is None:
        raise InvalidInput(f"'{text}' is not a port; write 8080:80 or 8080:80/udp")
    return pair(match["published"] or "", match["target"], match["protocol"], None, text)


def pair(published: str, target: str, protocol: str | None, mode: str | None, whole_text: str) -> list[spec.Port]:
    """From a Compose file's or a flag's parts; "" and None = not given."""
    protocol_number = _choice("protocol", "tcp" if protocol is None else protocol, PROTOCOLS, whole_text)
    mode_number = _choice("mode", "ingress" if mode is None else mode, MODES, whole_text)
    targets = _range(target, whole_text)
    publisheds = _range(published, whole_text) if published not in ("", "0") else [0] * len(targets)
    if len(publisheds) != len(targets):
        raise InvalidInput(
            f"the port ranges of '{whole_text}' differ in length: {len(publisheds)} published, {len(targets)} inside"
        )
    if mode_number == spec.PUBLISH_MODE_HOST and 0 in publisheds:
        raise InvalidInput(f"the port '{whole_text}' has mode=host and so needs a published port")
    return [
        spec.Port(protocol=protocol_number, target=t, published=p, mode=mode_number)
        for p, t in zip(publisheds, targets, strict=True)
    ]


def target(text: str) -> tuple[int, int | None]:
    """What `--publish-rm` takes: the port inside, 80 or 80/udp; also a whole 8080:80. → (target, protocol or None)."""
    inner = text.rpartition(":")[2]
    number, slash, protocol = inner.partition("/")
    chosen = int(_choice("protocol", protocol, PROTOCOLS, text)) if slash else None
    return port_number(number, text), chosen


def port_number(text: str, whole_text: str) -> int:
    return whole(text, f"a port of '{whole_text}'" if whole_text != text else "a port", 1, 65535)


def _long(text: str) -> list[spec.Port]:
    given = fields(text, "port", {"published", "target", "protocol", "mode"})
    if "target" not in given:
        raise InvalidInput(f"the port '{text}' has no target; write published=8080,target=80")
    return pair(given.get("published", ""), given["target"], given.get("protocol"), given.get("mode"), text)


def _range(text: str, whole_text: str) -> list[int]:
    first, dash, last = text.partition("-")
    low = port_number(first, whole_text)
    high = port_number(last, whole_text) if dash else low
    if high < low:
        raise InvalidInput(f"the port range {low}-{high} of '{whole_text}' runs backwards")
    if high - low >= 1000:
        raise InvalidInput(f"the port range {low}-{high} of '{whole_text}' has more than 1000 ports")
    return list(range(low, high + 1))


def _choice(what: str, value: str, known: Mapping[str, T], whole_text: str) -> T:
    if value.lower() not in known:
        raise InvalidInput(f"the {what} of the port '{whole_text}' must be {' or '.join(known)}, not '{value}'")
    return known[value.lower()]
