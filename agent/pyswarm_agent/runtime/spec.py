"""A container request → the OCI runtime's config.json. Pure: whatever must be looked up or made was done before."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyswarm_agent.interfaces import ContainerFailure, ContainerRequest
from pyswarm_agent.runtime import capabilities, command, mounts
from pyswarm_agent.runtime.host import HostFacts
from pyswarm_agent.runtime.users import User
from pyswarm_core.v1 import spec_pb2 as spec

CPU_PERIOD = 100_000  # µs, the kernel's and Docker's default
_SMALLEST_QUOTA = 1_000  # µs: the kernel refuses less
_SMALLEST_MEMORY = 6 << 20  # bytes: Docker's own limit; below it the runtime itself does not fit

MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# What the kernel keeps per IPC namespace; those below net. are per network namespace and set there by the links.
_IPC_SYSCTLS = re.compile(r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\..+")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was looked up and made for one container before its config is written."""

    user: User
    volumes: Mapping[str, str]  # target → folder on the host
    files: Mapping[str, str]  # target → file on the host
    cgroup: str


def build(request: ContainerRequest, facts: HostFacts, prepared: Prepared) -> dict[str, Any]:
    """config.json, as a dict. ContainerFailure (final) for what cannot be had here."""
    container = request.container
    granted = capabilities.granted(container.cap_add, container.cap_drop, facts.capabilities)
    init = _init(container, facts)
    all_mounts, propagation = mounts.build(container, prepared.volumes, prepared.files, init)
    linux: dict[str, Any] = {
        "cgroupsPath": prepared.cgroup,
        "namespaces": _namespaces(request, facts),
        "resources": resources(request.resources, counts_swap=facts.counts_swap),
        "seccomp": facts.seccomp.for_capabilities(granted),
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if sysctls := _sysctls(container.sysctls):
        linux["sysctl"] = sysctls
    if propagation:
        linux["rootfsPropagation"] = propagation
    return {
        "ociVersion": "1.0.2",
        "process": _process(request, facts, prepared.user, granted, with_init=bool(init)),
        "root": {"path": str(request.rootfs), "readonly": container.read_only},
        "hostname": request.hostname,
        "mounts": all_mounts,
        "annotations": _annotations(request.labels),
        "linux": linux,
    }


def _annotations(labels: Mapping[str, str]) -> dict[str, str]:
    """Our own labels alone. Runtimes obey some annotations (crun's run.oci.* could switch the seccomp filter off), so a
    user's labels must not become any."""
    return {name: value for name, value in labels.items() if name.startswith("pyswarm.")}


def workdir(request: ContainerRequest) -> str:
    """Absolute; ContainerFailure for a relative one."""
    path = request.container.workdir or request.image.workdir or "/"
    if not path.startswith("/"):
        raise ContainerFailure(f"the working directory {path!r} is no absolute path", final=True)
    return "/" + posixpath.normpath(path).lstrip("/")


def _process(
    request: ContainerRequest, facts: HostFacts, user: User, granted: frozenset[str], *, with_init: bool
) -> dict[str, Any]:
    container = request.container
    args = command.argv(container, request.image)
    names = sorted(granted)
    process: dict[str, Any] = {
        "terminal": container.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": [mounts.INIT, "--", *args] if with_init else list(args),
        "env": command.environment(container, request.image, request.hostname, user.home),
        "cwd": workdir(request),
        # Neither inheritable nor ambient: a user that is not root starts with none, and gains none by exec.
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": True,
        # Lowering it takes a privilege that the agent may not have itself.
        "oomScoreAdj": max(0, facts.oom_score_adj),
    }
    if limits := rlimits(container.ulimits, facts):
        process["rlimits"] = limits
    return process


def _init(container: spec.ContainerSpec, facts: HostFacts) -> str:
    if not container.init:
        return ""
    if not facts.init:
        raise ContainerFailure("the service wants an init and this host has none: install catatonit", final=False)
    return facts.init


def _namespaces(request: ContainerRequest, facts: HostFacts) -> list[dict[str, str]]:
    own = ["pid", "ipc", "uts", "mount", *(["cgroup"] if facts.has_cgroup_namespaces else [])]
    return [*({"type": kind} for kind in own), {"type": "network", "path": str(request.netns)}]


def rlimits(ulimits: Sequence[spec.Ulimit], facts: HostFacts) -> list[dict[str, Any]]:
    """Clamped to the agent's own hard limits: nothing on this host could raise them further."""
    limits: dict[str, dict[str, Any]] = {}
    for ulimit in ulimits:
        name = f"RLIMIT_{ulimit.name.strip().upper().removeprefix('RLIMIT_')}"
        if name not in facts.hard_limits:
            raise ContainerFailure(f"unknown ulimit {ulimit.name!r}: use names like nofile, nproc, core", final=True)
        highest = facts.hard_limits[name]
        hard = _clamped(ulimit.hard, highest, facts.unlimited)
        limits[name] = {"type": name, "soft": _wire(_clamped(ulimit.soft, hard, facts.unlimited)), "hard": _wire(hard)}
    return list(limits.values())


def _clamped(value: int, highest: int, unlimited: int) -> int:
    if highest == unlimited:
        return value if value >= 0 else unlimited
    return highest if value < 0 or value > highest else value


def _wire(value: int) -> int:
    """OCI limits are unsigned."""
    return value if value >= 0 else 2**64 - 1


def resources(wanted: spec.Resources, *, counts_swap: bool) -> dict[str, Any]:
    """No device but the runtime's default ones; memory without swap; a share of the CPUs by quota."""
    found: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if wanted.limit_memory > 0:
        if wanted.limit_memory < _SMALLEST_MEMORY:
            raise ContainerFailure(
                f"the memory limit of {wanted.limit_memory} bytes is too small: at least {_SMALLEST_MEMORY >> 20}M",
                final=True,
            )
        found["memory"] = {"limit": wanted.limit_memory}
        if counts_swap:
            found["memory"]["swap"] = wanted.limit_memory  # memory and swap together
    if wanted.limit_nano_cpus > 0:
        quota = wanted.limit_nano_cpus * CPU_PERIOD // 1_000_000_000
        found["cpu"] = {"period": CPU_PERIOD, "quota": max(_SMALLEST_QUOTA, quota)}
    if wanted.limit_pids > 0:
        found["pids"] = {"limit": wanted.limit_pids}
    return found


def _sysctls(wanted: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in wanted.items():
        dotted = name.replace("/", ".")
        if dotted.startswith("net."):
            continue
        if not _IPC_SYSCTLS.fullmatch(dotted):
            raise ContainerFailure(
                f"the sysctl {name} belongs to the whole host, not to a container: set it on the host", final=True
            )
        found[dotted] = value
    return found
