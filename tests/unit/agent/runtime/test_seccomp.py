from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyswarm_agent.runtime.capabilities import DEFAULT
from pyswarm_agent.runtime.seccomp import SeccompProfile

SHIPPED = Path("/usr/share/containers/seccomp.json")

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "errno": "EPERM",
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        },
        {"names": [], "action": "SCMP_ACT_ALLOW"},
    ],
}


def rules(converted: dict[str, Any], name: str) -> list[str]:
    return [rule["action"] for rule in converted["syscalls"] if name in rule["names"]]


def test_only_the_machines_own_architecture() -> None:
    converted = SeccompProfile(PROFILE, "x86_64", (6, 1)).for_capabilities(DEFAULT)
    assert converted["architectures"] == ["SCMP_ARCH_X86_64"]
    assert converted["defaultErrnoRet"] == 38
    assert rules(converted, "arch_prctl") == ["SCMP_ACT_ALLOW"]
    assert rules(SeccompProfile(PROFILE, "aarch64", (6, 1)).for_capabilities(DEFAULT), "arch_prctl") == []


def test_capabilities_decide() -> None:
    profile = SeccompProfile(PROFILE, "x86_64", (6, 1))
    assert rules(profile.for_capabilities(DEFAULT), "mount") == ["SCMP_ACT_ERRNO"]
    assert rules(profile.for_capabilities(DEFAULT | {"CAP_SYS_ADMIN"}), "mount") == ["SCMP_ACT_ALLOW"]


def test_kernel_versions_are_compared_as_numbers() -> None:
    assert rules(SeccompProfile(PROFILE, "x86_64", (4, 10)).for_capabilities(DEFAULT), "ptrace")
    assert not rules(SeccompProfile(PROFILE, "x86_64", (4, 4)).for_capabilities(DEFAULT), "ptrace")


def test_an_errno_is_only_beside_an_action_that_takes_one() -> None:
    broken = {**PROFILE, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]}
    converted = SeccompProfile(broken, "x86_64", (6, 1)).for_capabilities(DEFAULT)
    assert converted["syscalls"] == [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]


def test_containers_with_the_same_telling_capabilities_share_one_result() -> None:
    profile = SeccompProfile(PROFILE, "x86_64", (6, 1))
    assert profile.for_capabilities(DEFAULT) is profile.for_capabilities(DEFAULT | {"CAP_NET_ADMIN"})


@pytest.mark.parametrize("profile", [{}, {"defaultAction": "x"}, {"syscalls": []}])
def test_what_is_no_profile_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SeccompProfile(profile, "x86_64", (6, 1))


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="pdp11"):
        SeccompProfile(PROFILE, "pdp11", (6, 1))


@pytest.mark.skipif(not SHIPPED.exists(), reason="needs the package golang-github-containers-common")
def test_the_shipped_profile() -> None:
    profile = SeccompProfile(json.loads(SHIPPED.read_text()), "x86_64", (6, 1), as_docker=True)
    converted = profile.for_capabilities(DEFAULT)
    assert rules(converted, "read") == ["SCMP_ACT_ALLOW"]
    for name in ("mount", "unshare", "setns", "keyctl", "pivot_root", "bpf", "kexec_load", "reboot", "clone3"):
        assert rules(converted, name) == ["SCMP_ACT_ERRNO"], name
    clone = [rule for rule in converted["syscalls"] if "clone" in rule["names"]]
    assert [rule["args"][0]["op"] for rule in clone] == ["SCMP_CMP_MASKED_EQ"]
    with_admin = profile.for_capabilities(DEFAULT | {"CAP_SYS_ADMIN"})
    for name in ("mount", "unshare", "clone", "clone3"):
        assert rules(with_admin, name) == ["SCMP_ACT_ALLOW"], name
    assert rules(with_admin, "keyctl") == ["SCMP_ACT_ERRNO"]
    assert all(rule["names"] for rule in converted["syscalls"])
