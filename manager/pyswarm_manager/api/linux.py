"""What a Linux container may be given: capabilities, signals, resource limits, sysctls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CAPABILITIES = _words(
    """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
    FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
    NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
    SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM"""
)
SIGNALS = _words(
    """HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG
    XCPU XFSZ VTALRM PROF WINCH IO PWR SYS RTMIN RTMAX"""
)
ULIMITS = _words("core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack")
# Those that belong to a container's own namespaces; all others are the host's.
_SYSCTLS = _words(
    """kernel.domainname kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni
    kernel.shm_rmid_forced"""
)
_SYSCTL_PREFIXES = ("fs.mqueue.", "net.")
_SYSCTL = re.compile(r"[a-z0-9_-]+([./][A-Za-z0-9_-]+)+", re.ASCII)
_REALTIME = re.compile(r"RTM(IN\+|AX-)([1-9]|[12][0-9]|30)", re.ASCII)


def capability(name: str) -> str:
    """CAP_NET_ADMIN for net_admin; ALL for all. InvalidInput when there is none of that name."""
    bare = name.strip().upper().removeprefix("CAP_")
    if bare == "ALL":
        return bare
    if bare not in CAPABILITIES:
        raise InvalidInput(f"There is no capability {name!r}: write one as NET_ADMIN, or ALL.")
    return f"CAP_{bare}"


def stop_signal(name: str) -> str:
    """SIGTERM for term, TERM or SIGTERM; a number stays one. InvalidInput when there is no such signal."""
    bare = name.strip().upper().removeprefix("SIG")
    if bare.isdecimal() and bare.isascii() and 1 <= int(bare) <= 64:
        return str(int(bare))
    if bare not in SIGNALS and not _REALTIME.fullmatch(bare):
        raise InvalidInput(f"There is no signal {name!r}: write one as SIGTERM, SIGINT or a number from 1 to 64.")
    return f"SIG{bare}"


def check_ulimits(ulimits: Iterable[spec.Ulimit]) -> None:
    seen: set[str] = set()
    for limit in ulimits:
        if limit.name not in ULIMITS:
            raise InvalidInput(f"There is no ulimit {limit.name!r}: it is one of {', '.join(sorted(ULIMITS))}.")
        if limit.name in seen:
            raise InvalidInput(f"The ulimit {limit.name} is given twice.")
        seen.add(limit.name)
        if limit.soft < -1 or limit.hard < -1:
            raise InvalidInput(f"The ulimit {limit.name} must be 0 or more, or -1 for unlimited.")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            soft = "unlimited" if limit.soft == -1 else limit.soft
            raise InvalidInput(f"The soft ulimit {limit.name} ({soft}) is above its hard one ({limit.hard}).")


def check_sysctls(sysctls: Mapping[str, str]) -> None:
    for name, value in sysctls.items():
        if not _SYSCTL.fullmatch(name) or "\0" in value:
            raise InvalidInput(f"{name!r} is not the name of a sysctl: write one as net.core.somaxconn=1024.")
        dotted = name.replace("/", ".")
        if dotted not in _SYSCTLS and not dotted.startswith(_SYSCTL_PREFIXES):
            raise InvalidInput(
                f"The sysctl {name} belongs to the host and not to a container: only net.*, fs.mqueue.* and the "
                "kernel's IPC settings can be set."
            )
