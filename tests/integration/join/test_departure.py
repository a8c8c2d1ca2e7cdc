"""A host with containers is removed, and leaves: nothing of ours is left on it but its volumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.lab import REGISTRY, LabUnderTest, eventually, running

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

# What only an agent makes on a host: one line each.
LOOK = r"""
ip -o link | sed -n 's/^[0-9]*: \(ps[a-z0-9]*\).*/link \1/p'
nft list tables | sed -n '/pyswarm/s/^/nft /p'
ip rule | sed -n '/pyswarm\|proto 18[0-9]/s/^/rule /p'
ls /run/pyswarm/netns /run/pyswarm/containers 2>/dev/null | sed -n '/^[a-z0-9]\{25\}/s/^/run /p'
awk '$5 ~ "^/(var/lib|run)/pyswarm/" { print "mount " $5 }' /proc/self/mountinfo
find /sys/fs/cgroup -maxdepth 2 -type d -path '*/pyswarm' | sed 's/^/cgroup /'
ls /var/lib/pyswarm | sed 's/^/data /'
ls /etc/pyswarm 2>/dev/null | sed 's/^/etc /'
for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline 2>/dev/null | sed -n '/^[^ ]*conmon /s/^/process /p'; done
true
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    with running(LabUnderTest(f"mem{os.getpid()}", tmp_path_factory.mktemp("config"))) as made:
        _build_box(made, tmp_path_factory.mktemp("box"))
        yield made


def _build_box(lab: LabUnderTest, folder: Path) -> None:
    shutil.copy2("/bin/busybox", folder / "busybox")
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sleep\nCMD ["/bin/sleep", "1000000"]\n')
    lab.build(f"{REGISTRY}/box:1", folder)


def _found(lab: LabUnderTest, host: str) -> list[str]:
    return lab.on(host, "sh", "-c", LOOK).splitlines()


def _kinds(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines}


def test_a_removed_node_stops_its_containers(lab: LabUnderTest) -> None:
    lab.cli(
        *("service", "deploy", "box", f"{REGISTRY}/box:1", "--replicas", "3", "--replicas-max-per-node", "1"),
        *("--publish", "8080:80", "--mount", "type=volume,source=kept,target=/kept", "--update-monitor", "1s"),
    )
    host = next(t["node"] for t in lab.running("box") if t["node"] != "host-1")
    assert {"link", "nft", "run", "mount", "process"} <= _kinds(_found(lab, host)), "the look sees something"
    lab.cli("node", "rm", "--force", host)
    eventually(lambda: "process" not in _kinds(_found(lab, host)), "its containers are stopped by its agent")
    assert host not in {n["hostname"] for n in lab.json("node", "ls")}
    log = Path(f"/var/lib/pyswarm/lab/{lab.name}/hosts/{host}/log/agent.log").read_text()
    assert "this node was removed from its cluster" in log

    _leave(lab, host)


def test_a_host_with_running_containers_leaves(lab: LabUnderTest) -> None:
    """Its managers are not asked: the lab's hosts have no record of their membership."""
    host = next(t["node"] for t in lab.running("box") if t["node"] != "host-1")
    _leave(lab, host)


def _leave(lab: LabUnderTest, host: str) -> None:
    said = lab.run("lab", "exec", "--name", lab.name, host, "--", *_pyswarm(), "leave", "--force")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Volumes stay" in said.stdout
    left = [line for line in _found(lab, host) if line != "data volumes"]
    assert left == [], json.dumps(left, indent=1)
    assert "kept" in lab.on(host, "ls", "/var/lib/pyswarm/volumes")


def _pyswarm() -> list[str]:
    import sys

    return [sys.executable, "-m", "pyswarm_cli"]
