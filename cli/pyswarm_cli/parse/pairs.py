"""KEY=VALUE in all its uses: environment, labels, sysctls, ulimits, hosts, networks, log options."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from pyswarm_cli.parse.fields import fields
from pyswarm_cli.parse.numbers import size, whole
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?")


def env(text: str, environ: Mapping[str, str]) -> str | None:
    """KEY=VALUE as it is; KEY alone takes the caller's own value, and is None when there is none, as in Docker."""
    key, equals, _ = text.partition("=")
    if not key or any(c.isspace() or c == "\0" for c in key):
        raise InvalidInput(f"'{text}' is not KEY=VALUE")
    if "\0" in text:
        raise InvalidInput(f"the value of the variable {key} contains a NUL byte")
    if equals:
        return text
    return f"{key}={environ[key]}" if key in environ else None


def merge_env(*lists: Sequence[str]) -> list[str]:
    """Later values win; each key stays where it first was."""
    merged: dict[str, str] = {}
    for entries in lists:
        for entry in entries:
            merged[entry.partition("=")[0]] = entry
    return list(merged.values())


def label(text: str) -> tuple[str, str]:
    """KEY=VALUE; KEY alone has the value ""."""
    key, _, value = text.partition("=")
    if not key or any(c.isspace() for c in key):
        raise InvalidInput(f"'{text}' is not a label; write KEY=VALUE")
    return key, value


def sysctl(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    key = key.replace("/", ".")
    if not equals or not re.fullmatch(r"[a-z0-9_*-]+(\.[a-zA-Z0-9_*-]+)+", key):
        raise InvalidInput(f"'{text}' is not a sysctl; write net.core.somaxconn=1024")
    return key, value


def ulimit(text: str) -> spec.Ulimit:
    """nofile=1024, nofile=1024:2048; -1 or unlimited = no limit."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"'{text}' is not a ulimit; write nofile=1024:2048")
    soft, colon, hard = value.partition(":")
    return build_ulimit(name, soft, hard if colon else soft, text)


def build_ulimit(name: str, soft: str, hard: str, text: str) -> spec.Ulimit:
    if name not in ULIMITS:
        raise InvalidInput(f"there is no ulimit '{name}'; there are: {', '.join(ULIMITS)}")
    low, high = (-1 if v == "unlimited" else whole(v, f"the ulimit '{text}'", -1, 2**62) for v in (soft, hard))
    if high != -1 and (low == -1 or low > high):
        raise InvalidInput(f"the soft value of the ulimit '{text}' is above its hard value")
    return spec.Ulimit(name=name, soft=low, hard=high)


def host(text: str) -> spec.HostEntry:
    """HOST:IP, as in Docker; Compose writes HOST=IP too."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not _HOSTNAME.fullmatch(name):
        raise InvalidInput(f"'{text}' is not a host entry; write NAME:ADDRESS")
    return spec.HostEntry(hostname=name, address=ip(address.strip("[]"), f"the host entry '{text}'"))


def ip(text: str, what: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise InvalidInput(f"{what} needs an IP address, not '{text}'") from None


def network(text: str) -> spec.NetworkAttachment:
    """NAME, or name=NAME,alias=A,alias=B."""
    if "=" in text:
        given = fields(text, "network", {"name", "alias"}, repeated={"alias"})
        name, aliases = given.get("name", ""), given.get("alias", "").split("\n") if "alias" in given else []
    else:
        name, aliases = text, []
    for part in [name, *aliases]:
        if not _NAME.fullmatch(part):
            raise InvalidInput(f"the network '{text}' is not NAME or name=NAME,alias=ALIAS")
    return spec.NetworkAttachment(network_id=name, aliases=aliases)


def log_options(text: str) -> dict[str, int]:
    """max-size and max-file, the two that pyswarm's own rotated files have."""
    given = fields(text, "log option", {"max-size", "max-file"})
    result = {}
    if "max-size" in given:
        result["max_size"] = log_size(given["max-size"])
    if "max-file" in given:
        result["max_file"] = log_files(given["max-file"])
    return result


def log_size(text: str) -> int:
    value = size(text)
    if value < 1 << 12:
        raise InvalidInput(f"max-size must be at least 4k, not '{text}'")
    return value


def log_files(text: str) -> int:
    return whole(text, "max-file", 1, 1000)


def preference(text: str) -> str:
    key, equals, value = text.partition("=")
    if key != "spread" or not equals or not re.fullmatch(r"(node|engine)\.labels\..+|node\.[a-z.]+", value):
        raise InvalidInput(f"'{text}' is not a placement preference; write spread=node.labels.zone")
    return text


def constraint(text: str) -> str:
    """node.labels.zone==a, node.hostname!=b, …: whatever the scheduler understands, without spaces."""
    from pyswarm_manager.scheduler.constraints import parse

    return str(parse(text))
