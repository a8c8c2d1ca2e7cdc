"""Docker's seccomp profile to the OCI form. Pure; each result is kept.

The containers-common package ships Docker's profile in podman's version, which leaves it to capabilities whether
mounting, making namespaces and the like is allowed. A container that may make a user namespace has all of them there,
and with them much more of the kernel to attack; so what Docker denies is denied here, too (`as_docker`).

Only the machine's own architecture is listed: compiling for three takes 11 ms of a start. Programs for another (32-bit
ones on a 64-bit machine) are killed at their first system call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# uname -m → (the profile's name in includes/excludes, SCMP constant)
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


# System calls that Docker allows only with a capability, "" for never.
_DOCKER_NEEDS = {
    **dict.fromkeys(
        ("fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"), "CAP_SYS_ADMIN"
    ),
    **dict.fromkeys(("open_tree", "setns", "umount", "umount2", "unshare"), "CAP_SYS_ADMIN"),
    **dict.fromkeys(("get_mempolicy", "mbind", "set_mempolicy"), "CAP_SYS_NICE"),
    "syslog": "CAP_SYSLOG",
    "reboot": "CAP_SYS_BOOT",
    "pidfd_getfd": "CAP_SYS_PTRACE",
    **dict.fromkeys(("add_key", "keyctl", "pivot_root", "request_key"), ""),
}
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW* of clone(2)
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


class SeccompProfile:
    """`profile` is the parsed file; ValueError when it is of no such form or the machine is unknown. `as_docker`: also
    deny what Docker's own version denies."""

    def __init__(
        self, profile: Mapping[str, Any], machine: str, kernel: tuple[int, int], *, as_docker: bool = False
    ) -> None:
        try:
            self._arch, self._scmp_arch = ARCHITECTURES[machine]
        except KeyError:
            raise ValueError(f"no seccomp architecture is known for {machine}") from None
        if not isinstance(profile.get("syscalls"), list) or "defaultAction" not in profile:
            raise ValueError("it has no defaultAction and syscalls")
        self._profile = profile
        self._kernel = kernel
        self._as_docker = as_docker
        # Only these capabilities make a difference, so that nearly all containers share one result.
        self._telling = frozenset(
            name
            for rule in profile["syscalls"]
            for part in ("includes", "excludes")
            for name in (rule.get(part) or {}).get("caps") or ()
        ) | (frozenset(_DOCKER_NEEDS.values()) | {"CAP_SYS_ADMIN"} if as_docker else frozenset())
        self._kept: dict[frozenset[str], dict[str, Any]] = {}

    def for_capabilities(self, capabilities: frozenset[str]) -> dict[str, Any]:
        """`linux.seccomp` of an OCI config; not to be changed."""
        key = capabilities & self._telling
        if key not in self._kept:
            self._kept[key] = self._convert(key)
        return self._kept[key]

    def _convert(self, capabilities: frozenset[str]) -> dict[str, Any]:
        rules = [
            _rule(rule) for rule in self._profile["syscalls"] if self._applies(rule, capabilities) and _names(rule)
        ]
        converted: dict[str, Any] = {
            "defaultAction": self._profile["defaultAction"],
            "architectures": [self._scmp_arch],
            "syscalls": self._tightened(rules, capabilities) if self._as_docker else rules,
        }
        if (errno := self._profile.get("defaultErrnoRet")) is not None:
            converted["defaultErrnoRet"] = errno
        return converted

    def _tightened(self, rules: list[dict[str, Any]], capabilities: frozenset[str]) -> list[dict[str, Any]]:
        denied = {name for name, needed in _DOCKER_NEEDS.items() if needed not in capabilities}
        without_namespaces = {"clone", "clone3"} if "CAP_SYS_ADMIN" not in capabilities else set()
        found = []
        for rule in rules:
            if rule["action"] == _ALLOW and "args" not in rule:
                names = [name for name in rule["names"] if name not in denied and name not in without_namespaces]
                rule = {**rule, "names": names}
            if rule["names"]:
                found.append(rule)
        refused = {name for rule in found if rule["action"] == _ERRNO and "args" not in rule for name in rule["names"]}
        found.append({"names": sorted(denied - refused), "action": _ERRNO, "errnoRet": _EPERM})
        if without_namespaces:
            flags = {
                "index": 1 if self._arch == "s390x" else 0,
                "value": _NAMESPACE_FLAGS,
                "valueTwo": 0,
                "op": "SCMP_CMP_MASKED_EQ",
            }
            found.append({"names": ["clone"], "action": _ALLOW, "args": [flags]})
            # Its flags are in memory, where no filter can look; libraries fall back to clone.
            found.append({"names": ["clone3"], "action": _ERRNO, "errnoRet": _ENOSYS})
        return found

    def _applies(self, rule: Mapping[str, Any], capabilities: frozenset[str]) -> bool:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if (arches := includes.get("arches")) and self._arch not in arches:
            return False
        if not capabilities.issuperset(includes.get("caps") or ()):
            return False
        if (minimum := includes.get("minKernel")) and self._kernel < _version(minimum):
            return False
        if self._arch in (excludes.get("arches") or ()):
            return False
        if capabilities.intersection(excludes.get("caps") or ()):
            return False
        return not ((minimum := excludes.get("minKernel")) and self._kernel >= _version(minimum))


def _names(rule: Mapping[str, Any]) -> Sequence[str]:
    return rule.get("names") or ([rule["name"]] if rule.get("name") else [])


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {"names": list(_names(rule)), "action": rule["action"]}
    if args := rule.get("args"):
        converted["args"] = [
            {key: arg[key] for key in ("index", "value", "valueTwo", "op") if key in arg} for arg in args
        ]
    # With any other action the runtimes refuse an errno.
    if rule.get("errnoRet") is not None and rule["action"] in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        converted["errnoRet"] = rule["errnoRet"]
    return converted


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
