"""Docker's seccomp profile (as the containers-common package ships it) to the OCI form. Pure; each result is kept.

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


class SeccompProfile:
    """`profile` is the parsed file; ValueError when it is of no such form or the machine unknown."""

    def __init__(self, profile: Mapping[str, Any], machine: str, kernel: tuple[int, int]) -> None:
        try:
            self._arch, self._scmp_arch = ARCHITECTURES[machine]
        except KeyError:
            raise ValueError(f"no seccomp architecture is known for {machine}") from None
        if not isinstance(profile.get("syscalls"), list) or "defaultAction" not in profile:
            raise ValueError("it has no defaultAction and syscalls")
        self._profile = profile
        self._kernel = kernel
        # Only these capabilities make a difference, so that nearly all containers share one result.
        self._telling = frozenset(
            name
            for rule in profile["syscalls"]
            for part in ("includes", "excludes")
            for name in (rule.get(part) or {}).get("caps") or ()
        )
        self._kept: dict[frozenset[str], dict[str, Any]] = {}

    def for_capabilities(self, capabilities: frozenset[str]) -> dict[str, Any]:
        """`linux.seccomp` of an OCI config; not to be changed."""
        key = capabilities & self._telling
        if key not in self._kept:
            self._kept[key] = self._convert(key)
        return self._kept[key]

    def _convert(self, capabilities: frozenset[str]) -> dict[str, Any]:
        converted: dict[str, Any] = {
            "defaultAction": self._profile["defaultAction"],
            "architectures": [self._scmp_arch],
            "syscalls": [
                _rule(rule) for rule in self._profile["syscalls"] if self._applies(rule, capabilities) and _names(rule)
            ],
        }
        if (errno := self._profile.get("defaultErrnoRet")) is not None:
            converted["defaultErrnoRet"] = errno
        return converted

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
