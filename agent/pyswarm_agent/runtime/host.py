"""What a container's config depends on of this host; read once, when the agent starts."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyswarm_agent.runtime import capabilities
from pyswarm_agent.runtime.seccomp import SeccompProfile
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core.errors import PreconditionFailed

PACKAGED_PROFILE = "/usr/share/containers/seccomp.json"
_PROFILES = ("/etc/containers/seccomp.json", PACKAGED_PROFILE)
_INITS = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit")
RUNTIMES = ("crun", "runc")


@dataclass(frozen=True, slots=True)
class HostFacts:
    capabilities: frozenset[str]  # that the agent can pass on
    hard_limits: Mapping[str, int]  # RLIMIT_NOFILE → the agent's own hard limit, RLIM_INFINITY for none
    oom_score_adj: int  # the agent's own
    seccomp: SeccompProfile
    init: str  # path of a static init; "" for none
    counts_swap: bool
    has_cgroup_namespaces: bool
    unlimited: int = resource.RLIM_INFINITY


@dataclass(frozen=True, slots=True)
class Programs:
    runtime: str
    conmon: str


def find_programs(settings: RuntimeSettings) -> Programs:
    """PreconditionFailed, with what to install, when one is missing."""
    runtime = _program(settings.runtime, RUNTIMES)
    if not runtime:
        raise PreconditionFailed("no OCI runtime was found: install crun (or runc)")
    conmon = _program(settings.conmon, ("conmon",))
    if not conmon:
        raise PreconditionFailed("conmon was not found: install conmon")
    return Programs(runtime, conmon)


def read_facts(settings: RuntimeSettings, *, counts_swap: bool) -> HostFacts:
    """PreconditionFailed when there is no usable seccomp profile: containers are never run without one."""
    status = Path("/proc/self/status").read_text()
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return HostFacts(
        capabilities=capabilities.from_mask(int(bounding[1], 16) if bounding else 0),
        hard_limits={
            name: resource.getrlimit(getattr(resource, name))[1] for name in dir(resource) if name.startswith("RLIMIT_")
        },
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        seccomp=_read_profile(settings),
        init=_program(settings.init, (*_INITS, "catatonit")),
        counts_swap=counts_swap,
        has_cgroup_namespaces=Path("/proc/self/ns/cgroup").exists(),
    )


def kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _program(given: str, names: tuple[str, ...]) -> str:
    """Empty when there is none."""
    for name in (given,) if given else names:
        if path := shutil.which(name):
            return path
    return ""


def _read_profile(settings: RuntimeSettings) -> SeccompProfile:
    places = (settings.seccomp_profile,) if settings.seccomp_profile else _PROFILES
    for place in places:
        try:
            text = Path(place).read_text()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PreconditionFailed(f"the seccomp profile {place} cannot be read: {error.strerror}") from error
        try:
            # A profile that somebody on this host wrote is taken as it is.
            return SeccompProfile(
                json.loads(text), platform.machine(), kernel_version(), as_docker=place == PACKAGED_PROFILE
            )
        except ValueError as error:
            raise PreconditionFailed(f"the seccomp profile {place} cannot be used: {error}") from error
    raise PreconditionFailed(
        f"there is no seccomp profile at {' or '.join(places)}: install golang-github-containers-common "
        "(or containers-common), or name one in the settings"
    )
