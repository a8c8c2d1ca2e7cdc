from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_agent.runtime.cgroups import Cgroups, Layout, Usage

V1 = """21 1 0:19 / /sys rw - sysfs sysfs rw
30 21 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
33 30 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = "34 30 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
COVER = "35 34 0:40 / /sys/fs/cgroup/unified rw - tmpfs none rw\n"
V2 = "30 21 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
ELSEWHERE = "40 1 0:50 / /mnt/cgroup rw - cgroup2 none rw\n"
ABOVE = "41 1 0:51 / /sys rw - sysfs sysfs rw\n"


@pytest.mark.parametrize(
    ("mounts", "layout"),
    [
        (V1, Layout.V1),
        (V1 + UNIFIED, Layout.HYBRID),
        (V1 + UNIFIED + COVER, Layout.V1),
        (V2, Layout.V2),
        (V1 + ELSEWHERE, Layout.V1),
        (V1 + ABOVE + V2, Layout.V2),
    ],
)
def test_layouts(mounts: str, layout: Layout) -> None:
    assert Cgroups.detect("pyswarm", mountinfo=mounts).layout is layout


def test_controllers_that_are_mounted_together() -> None:
    cgroups = Cgroups.detect("pyswarm", mountinfo=V1)
    assert cgroups.has("cpu") and cgroups.has("cpuacct") and cgroups.has("memory") and not cgroups.has("pids")


def test_paths_with_spaces() -> None:
    cgroups = Cgroups.detect("p", mountinfo=V2.replace("/sys/fs/cgroup", "/odd\\040place"), root=Path("/odd place"))
    assert cgroups.layout is Layout.V2


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_usage_on_v2(tmp_path: Path) -> None:
    cgroups = Cgroups(Layout.V2, [(frozenset({"cpu", "memory", "pids"}), tmp_path)], "pyswarm")
    group = tmp_path / "pyswarm" / "t1"
    write(
        group,
        memory__current="1000\n",
        memory__max="max\n",
        memory__events="low 0\noom 3\noom_kill 2\n",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        pids__current="3\n",
        cgroup__procs="12\n13\n",
    )
    write(group / "inner", cgroup__procs="14\n")
    assert cgroups.usage("t1") == Usage(1000, None, 2.5, 3)
    assert cgroups.oom_kills("t1") == 2
    assert cgroups.pids("t1") == [12, 13, 14]
    assert cgroups.tasks() == ["t1"]


def test_usage_on_v1(tmp_path: Path) -> None:
    mounts = [
        (frozenset({"cpu", "cpuacct"}), tmp_path / "cpu"),
        (frozenset({"memory"}), tmp_path / "memory"),
        (frozenset({"pids"}), tmp_path / "pids"),
    ]
    cgroups = Cgroups(Layout.V1, mounts, "pyswarm")
    write(tmp_path / "cpu" / "pyswarm" / "t1", cpuacct__usage="1500000000\n")
    write(
        tmp_path / "memory" / "pyswarm" / "t1",
        memory__usage_in_bytes="4096\n",
        memory__limit_in_bytes="67108864\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        memory__memsw__limit_in_bytes="1\n",
    )
    write(tmp_path / "pids" / "pyswarm" / "t1", pids__current="2\n")
    assert cgroups.usage("t1") == Usage(4096, 64 << 20, 1.5, 2)
    assert cgroups.oom_kills("t1") == 1


def test_what_is_gone_uses_nothing(tmp_path: Path) -> None:
    for layout in (Layout.V1, Layout.V2):
        cgroups = Cgroups(layout, [(frozenset({"cpu", "memory", "pids", "cpuacct"}), tmp_path)], "pyswarm")
        assert cgroups.usage("nobody") == Usage(None, None, None, None)
        assert cgroups.oom_kills("nobody") == 0
        assert cgroups.pids("nobody") == []
        assert cgroups.remove("nobody")


def test_no_limit_on_v1_is_no_limit(tmp_path: Path) -> None:
    cgroups = Cgroups(Layout.V1, [(frozenset({"memory"}), tmp_path)], "pyswarm")
    write(tmp_path / "pyswarm" / "t1", memory__limit_in_bytes="9223372036854771712\n")
    assert cgroups.usage("t1").memory_limit is None


def test_parents_are_made_and_removed_level_by_level(tmp_path: Path) -> None:
    cgroups = Cgroups(Layout.V1, [(frozenset({"memory"}), tmp_path)], "a/b")
    cgroups.make_parent()
    cgroups.make_parent()
    (tmp_path / "a" / "b" / "t1").mkdir()
    cgroups.remove_parent()
    assert (tmp_path / "a" / "b").is_dir()
    assert cgroups.remove("t1")
    cgroups.remove_parent()
    assert list(tmp_path.iterdir()) == []


def test_a_new_cpuset_gets_its_parents_processors(tmp_path: Path) -> None:
    write(tmp_path, cpuset__cpus="0-1\n", cpuset__mems="0\n")
    Cgroups(Layout.V1, [(frozenset({"cpuset"}), tmp_path)], "a/b").make_parent()
    assert (tmp_path / "a" / "b" / "cpuset.cpus").read_text() == "0-1\n"


def test_controllers_are_passed_on_to_the_tasks_on_v2(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "pyswarm"):
        write(folder, cgroup__controllers="cpu io memory pids rdma\n", cgroup__subtree_control="io\n")
    Cgroups(Layout.V2, [(frozenset({"memory"}), tmp_path)], "pyswarm").make_parent()
    for folder in (tmp_path, tmp_path / "pyswarm"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
