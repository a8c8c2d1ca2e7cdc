from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from pyswarm_agent.interfaces import ContainerFailure, ContainerRequest, ImageConfig
from pyswarm_agent.runtime import capabilities, etcfiles, spec
from pyswarm_agent.runtime.host import HostFacts
from pyswarm_agent.runtime.seccomp import SeccompProfile
from pyswarm_agent.runtime.users import User
from pyswarm_core.v1 import spec_pb2

FACTS = HostFacts(
    capabilities=frozenset(capabilities.KNOWN),
    hard_limits={"RLIMIT_NOFILE": 20000, "RLIMIT_CORE": resource.RLIM_INFINITY, "RLIMIT_NPROC": 500},
    oom_score_adj=0,
    seccomp=SeccompProfile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}, "x86_64", (6, 1)),
    init="/usr/bin/catatonit",
    counts_swap=True,
    has_cgroup_namespaces=True,
)
PREPARED = spec.Prepared(User(5, 6, (7,), "/home/u"), {}, {"/etc/hosts": "/run/x/hosts"}, "/pyswarm/t1")


def request(container: spec_pb2.ContainerSpec | None = None, **others: object) -> ContainerRequest:
    base = ContainerRequest(
        task_id="t1",
        service_name="web",
        container=container or spec_pb2.ContainerSpec(),
        resources=spec_pb2.Resources(),
        log=spec_pb2.LogPolicy(),
        image=ImageConfig(cmd=("serve",)),
        rootfs=Path("/rootfs"),
        netns=Path("/run/netns/t1"),
        hostname="web-1",
        nameserver="169.254.1.1",
        search=("corp.example",),
        hosts=(("10.128.0.5", "web-1"),),
        labels={"pyswarm.task.id": "t1"},
    )
    return replace(base, **others)  # type: ignore[arg-type]


def test_what_every_container_gets() -> None:
    config = spec.build(request(), FACTS, PREPARED)
    process, linux = config["process"], config["linux"]
    assert process["args"] == ["serve"] and process["cwd"] == "/" and process["noNewPrivileges"] is True
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert "HOME=/home/u" in process["env"] and "HOSTNAME=web-1" in process["env"]
    assert process["capabilities"]["bounding"] == sorted(capabilities.DEFAULT)
    assert "inheritable" not in process["capabilities"] and "ambient" not in process["capabilities"]
    assert {n["type"]: n.get("path") for n in linux["namespaces"]} == {
        **dict.fromkeys(("pid", "ipc", "uts", "mount", "cgroup")),
        "network": "/run/netns/t1",
    }
    assert linux["cgroupsPath"] == "/pyswarm/t1"
    assert "/proc/kcore" in linux["maskedPaths"] and "/proc/sys" in linux["readonlyPaths"]
    assert linux["seccomp"]["architectures"] == ["SCMP_ARCH_X86_64"]
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert config["root"] == {"path": "/rootfs", "readonly": False}
    json.dumps(config)


def test_no_label_of_a_users_becomes_an_annotation() -> None:
    labels = {"run.oci.seccomp_bpf_data": "x", "org.systemd.property.X": "y", "a": "b", "pyswarm.task.id": "t1"}
    assert spec.build(request(labels=labels), FACTS, PREPARED)["annotations"] == {"pyswarm.task.id": "t1"}


def test_the_init_comes_first_and_must_be_there() -> None:
    with_init = request(spec_pb2.ContainerSpec(init=True))
    assert spec.build(with_init, FACTS, PREPARED)["process"]["args"] == ["/dev/init", "--", "serve"]
    with pytest.raises(ContainerFailure, match="catatonit"):
        spec.build(with_init, replace(FACTS, init=""), PREPARED)


def test_a_working_directory_is_cleaned_and_absolute() -> None:
    assert spec.workdir(request(spec_pb2.ContainerSpec(workdir="/a/../b/"))) == "/b"
    assert spec.workdir(request(image=ImageConfig(workdir="/srv"))) == "/srv"
    with pytest.raises(ContainerFailure, match="absolute"):
        spec.workdir(request(spec_pb2.ContainerSpec(workdir="srv")))


@pytest.mark.parametrize(("own", "expected"), [(0, 0), (-900, 0), (300, 300)])
def test_the_oom_score_is_never_below_what_the_agent_may_give(own: int, expected: int) -> None:
    config = spec.build(request(), replace(FACTS, oom_score_adj=own), PREPARED)
    assert config["process"]["oomScoreAdj"] == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("nofile", 1024, 4096), {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}),
        (("nofile", 1024, 1 << 20), {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 20000}),
        (("RLIMIT_NOFILE", 1 << 20, 1 << 20), {"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}),
        (("nproc", -1, -1), {"type": "RLIMIT_NPROC", "soft": 500, "hard": 500}),
        (("core", 0, -1), {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}),
        (("core", -1, -1), {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}),
        (("core", 500, 100), {"type": "RLIMIT_CORE", "soft": 100, "hard": 100}),
    ],
)
def test_limits_are_clamped_to_the_agents_own(asked: tuple[str, int, int], expected: dict[str, object]) -> None:
    name, soft, hard = asked
    assert spec.rlimits([spec_pb2.Ulimit(name=name, soft=soft, hard=hard)], FACTS) == [expected]


def test_an_unknown_ulimit_is_refused() -> None:
    with pytest.raises(ContainerFailure, match="wings"):
        spec.rlimits([spec_pb2.Ulimit(name="wings", soft=2, hard=2)], FACTS)


def test_resources() -> None:
    wanted = spec_pb2.Resources(limit_memory=64 << 20, limit_nano_cpus=1_500_000_000, limit_pids=50)
    found = spec.resources(wanted, counts_swap=True)
    assert found["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert found["cpu"] == {"period": 100_000, "quota": 150_000}
    assert found["pids"] == {"limit": 50}
    assert spec.resources(wanted, counts_swap=False)["memory"] == {"limit": 64 << 20}


def test_a_tiny_share_of_a_cpu_is_still_one_the_kernel_takes() -> None:
    assert spec.resources(spec_pb2.Resources(limit_nano_cpus=1), counts_swap=True)["cpu"]["quota"] == 1000


def test_a_memory_limit_below_the_runtimes_own_need_is_refused() -> None:
    with pytest.raises(ContainerFailure, match="6M"):
        spec.resources(spec_pb2.Resources(limit_memory=1 << 20), counts_swap=True)


def test_sysctls_of_ipc_are_set_those_of_the_network_left_to_the_links_and_the_hosts_refused() -> None:
    allowed = request(
        spec_pb2.ContainerSpec(sysctls={"kernel.shmmax": "1", "fs/mqueue/msg_max": "9", "net.core.somaxconn": "5"})
    )
    assert spec.build(allowed, FACTS, PREPARED)["linux"]["sysctl"] == {"kernel.shmmax": "1", "fs.mqueue.msg_max": "9"}
    for name in ("vm.swappiness", "kernel.panic", "kernel.shmmaxi", "fs.file-max"):
        with pytest.raises(ContainerFailure, match="host"):
            spec.build(request(spec_pb2.ContainerSpec(sysctls={name: "1"})), FACTS, PREPARED)


def test_a_host_without_cgroup_namespaces() -> None:
    config = spec.build(request(), replace(FACTS, has_cgroup_namespaces=False), PREPARED)
    assert "cgroup" not in [n["type"] for n in config["linux"]["namespaces"]]


def test_the_files_in_etc() -> None:
    container = spec_pb2.ContainerSpec(
        hosts=[spec_pb2.HostEntry(hostname="db", address="192.0.2.7")],
        dns=spec_pb2.DnsConfig(options=["timeout:1"]),
    )
    texts = etcfiles.texts(request(container))
    assert texts["/etc/hostname"] == "web-1\n"
    assert texts["/etc/resolv.conf"] == "nameserver 169.254.1.1\nsearch corp.example\noptions timeout:1 ndots:0\n"
    hosts = [line.split("\t") for line in texts["/etc/hosts"].splitlines()]
    assert ["127.0.0.1", "localhost"] in hosts and ["10.128.0.5", "web-1"] in hosts and ["192.0.2.7", "db"] in hosts


def test_a_user_may_set_ndots_and_have_no_nameserver() -> None:
    container = spec_pb2.ContainerSpec(dns=spec_pb2.DnsConfig(options=["ndots:2"]))
    assert "options ndots:2\n" in etcfiles.texts(request(container))["/etc/resolv.conf"]
    assert "/etc/resolv.conf" not in etcfiles.texts(request(nameserver=""))


def test_a_host_entry_that_comes_twice_is_written_once() -> None:
    container = spec_pb2.ContainerSpec(hosts=[spec_pb2.HostEntry(hostname="web-1", address="10.128.0.5")])
    assert etcfiles.texts(request(container))["/etc/hosts"].count("10.128.0.5") == 1
