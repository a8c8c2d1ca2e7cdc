"""Is a container's spec possible?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.linux import check_sysctls, check_ulimits
from pyswarm_manager.api.mounts import check_mounts
from pyswarm_manager.api.names import check_address, check_hostname, check_labels
from pyswarm_manager.api.numbers import check_duration
from pyswarm_manager.api.templates import check_templates, filled

_USER = re.compile(r"[^\s:\0]+(:[^\s:\0]+)?")
_HIGHEST_RETRIES = 1000


def check_container(container: spec.ContainerSpec) -> None:
    """`container` is complete already (`defaults.complete`)."""
    check_env(container.env)
    check_templates("the hostname", container.hostname)
    if container.hostname:
        check_hostname("Hostname", filled(container.hostname))
    if container.user and not _USER.fullmatch(container.user):
        raise InvalidInput(f"User {container.user!r} is not valid: write NAME, UID, NAME:GROUP or UID:GID.")
    for group in container.groups:
        if not _USER.fullmatch(group) or ":" in group:
            raise InvalidInput(f"Group {group!r} is not valid: write a name or a number.")
    if container.workdir and not container.workdir.startswith("/"):
        raise InvalidInput(f"The working folder {container.workdir!r} must be an absolute path in the container.")
    for text in (*container.args, *container.entrypoint.values):
        if "\0" in text:
            raise InvalidInput("The command has a NUL character in it.")
    check_mounts(container.mounts)
    check_ulimits(container.ulimits)
    check_sysctls(container.sysctls)
    check_labels("container label", container.labels)
    check_duration("The stop grace period", container.stop_grace)
    both = sorted(set(container.cap_add).intersection(container.cap_drop))
    if both:
        raise InvalidInput(f"The capability {both[0]} is both added and dropped: choose one.")
    _check_names(container)
    if container.HasField("probe"):
        check_probe(container.probe)


def check_env(env: Iterable[str]) -> None:
    for entry in env:
        key, equals, _ = entry.partition("=")
        if not equals:
            raise InvalidInput(f"Environment variable {entry!r} has no value: write it as {entry or 'KEY'}=VALUE.")
        if not key or any(character.isspace() for character in key):
            raise InvalidInput(f"Environment variable {entry[:60]!r} has no valid name: write it as KEY=VALUE.")
        if "\0" in entry:
            raise InvalidInput(f"Environment variable {key!r} has a NUL character in it.")
        check_templates(f"environment variable {key}", entry)


def check_probe(probe: spec.Probe) -> None:
    check = probe.WhichOneof("check")
    if probe.disabled:
        if check is not None:
            raise InvalidInput("The health check is switched off and given at the same time: choose one.")
        return
    if check is None:
        raise InvalidInput("The health check has no command, HTTP path or TCP port to look at.")
    if check == "command":
        if not probe.command.values or not probe.command.values[0]:
            raise InvalidInput("The health check's command is empty.")
        if any("\0" in text for text in probe.command.values):
            raise InvalidInput("The health check's command has a NUL character in it.")
    else:
        port = probe.http.port if check == "http" else probe.tcp.port
        if not 1 <= port <= 65535:
            raise InvalidInput(f"The health check's port {port} is not between 1 and 65535.")
        path = probe.http.path
        if check == "http" and (not path.startswith("/") or not path.isprintable() or " " in path):
            raise InvalidInput(f"The health check's path {path!r} is not valid: it begins with / and has no blanks.")
    for what, value in (("interval", probe.interval), ("timeout", probe.timeout), ("start period", probe.start_period)):
        check_duration(f"The health check's {what}", value)
    for what, value in (("interval", probe.interval), ("timeout", probe.timeout)):
        if value < 0.001:
            raise InvalidInput(f"The health check's {what} must be at least 1 ms.")
    if probe.retries > _HIGHEST_RETRIES:
        raise InvalidInput(f"The health check's retries must be at most {_HIGHEST_RETRIES}, not {probe.retries}.")


def _check_names(container: spec.ContainerSpec) -> None:
    for entry in container.hosts:
        check_hostname("The host entry", entry.hostname)
        check_address(f"The address of the host entry {entry.hostname}:", entry.address)
    for server in container.dns.servers:
        check_address("DNS server", server)
    for domain in container.dns.search:
        if domain != ".":
            check_hostname("DNS search domain", domain.rstrip("."))
    for option in container.dns.options:
        if not option or not option.isprintable() or " " in option:
            raise InvalidInput(f"DNS option {option!r} is not valid: write it as ndots:2.")
