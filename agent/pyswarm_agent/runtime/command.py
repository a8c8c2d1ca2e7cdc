"""What a container runs, in which environment: the image's config and the spec's overrides, by Docker's rules. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_core.v1 import spec_pb2 as spec

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REAL_TIME = re.compile(r"RTMIN(?:\+(\d+))?|RTMAX(?:-(\d+))?")


def argv(container: spec.ContainerSpec, image: ImageConfig) -> Sequence[str]:
    """An entrypoint of the spec's own (an empty one too) also clears the image's cmd. ContainerFailure for nothing."""
    if container.HasField("entrypoint"):
        entrypoint: Sequence[str] = [part for part in container.entrypoint.values if part]
        cmd: Sequence[str] = container.args
    else:
        entrypoint = image.entrypoint
        cmd = container.args or image.cmd
    result = [*entrypoint, *cmd]
    if not result:
        raise ContainerFailure(
            "there is no command to run: the image has neither entrypoint nor cmd, and the service gives no arguments",
            final=True,
        )
    return result


def environment(container: spec.ContainerSpec, image: ImageConfig, hostname: str, home: str) -> list[str]:
    """KEY=VALUE, each key once: defaults, then the image's, then the spec's. A key of the spec's without "=" is
    removed, as `docker run -e KEY` does for a variable that is not set."""
    merged: dict[str, str | None] = {}
    for entry in (DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if container.tty else []), f"HOME={home}"):
        merged[entry.partition("=")[0]] = entry
    for entry in (*image.env, *container.env):
        key, equals, _ = entry.partition("=")
        if key:
            merged[key] = entry if equals else None
    return [entry for entry in merged.values() if entry is not None]


def signal_number(name: str) -> int:
    """TERM, SIGTERM, 15, RTMIN+3 → the number. ContainerFailure for anything else."""
    bare = name.strip().upper().removeprefix("SIG")
    number = 0
    if bare.isascii() and bare.isdigit():
        number = int(bare)
    elif found := _REAL_TIME.fullmatch(bare):
        below_max = bare.startswith("RTMAX")
        number = signal.SIGRTMAX - int(found[2] or 0) if below_max else signal.SIGRTMIN + int(found[1] or 0)
    elif (member := getattr(signal, f"SIG{bare}", None)) and isinstance(member, signal.Signals):
        number = int(member)
    if not 1 <= number <= signal.SIGRTMAX:
        raise ContainerFailure(f"unknown signal {name!r}: use a name like TERM or a number", final=True)
    return number
