"""Which capabilities a container gets: Docker's default set and its rules for add and drop. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_agent.interfaces import ContainerFailure

# In the kernel's order: bit n of /proc/self/status' CapBnd is KNOWN[n].
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT_NAMES = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
KNOWN = tuple(f"CAP_{name}" for name in _NAMES.split())
DEFAULT = frozenset(f"CAP_{name}" for name in _DEFAULT_NAMES.split())
ALL = "ALL"


def normalised(name: str) -> str:
    """CAP_NET_ADMIN for net_admin. ContainerFailure for a name that no kernel knows."""
    upper = name.strip().upper()
    if upper in (ALL, "CAP_ALL"):
        return ALL
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in KNOWN:
        raise ContainerFailure(f"unknown capability {name!r}: use names like NET_ADMIN, or ALL", final=True)
    return full


def granted(add: Sequence[str], drop: Sequence[str], available: frozenset[str]) -> frozenset[str]:
    """Docker's rules: ALL added is everything this host has but what is dropped; ALL dropped is nothing but what is
    added. ContainerFailure when one is asked for by name that the agent itself does not have."""
    adds = {normalised(name) for name in add}
    drops = {normalised(name) for name in drop}
    if missing := adds - {ALL} - available:
        raise ContainerFailure(f"this host cannot give the capability {', '.join(sorted(missing))}", final=True)
    if ALL in adds:
        return available - drops
    if ALL in drops:
        return frozenset(adds)
    return ((DEFAULT & available) - drops) | adds


def from_mask(mask: int) -> frozenset[str]:
    """From CapBnd of /proc/PID/status."""
    return frozenset(name for bit, name in enumerate(KNOWN) if mask >> bit & 1)
