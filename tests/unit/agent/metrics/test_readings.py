"""Control groups and links as the kernel shows them, in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_agent.metrics_readings import GroupFigures, Kernel, LinkFigures, links
from pyswarm_agent.network.links import host_end
from pyswarm_agent.runtime.cgroups import Cgroups, Layout

TASK = "0123456789abcdef0123"
STAT_V1 = "cache 100\nrss 200\ninactive_file 7\ntotal_cache 4096\ntotal_rss 8192\ntotal_inactive_file 1000\n"
NET_DEV = f"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo: 99 9    0    0    0     0          0         0 99 9    0    0    0     0       0          0
{host_end(TASK)}:18446744073709551615 2 3 4 0 0 0 0 11 12 13 14 0 0 0 0
pscelse: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0
"""


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def read(groups: Cgroups, tmp_path: Path) -> GroupFigures:
    (tmp_path / "dev").write_text(NET_DEV)
    readings = Kernel(groups, tmp_path / "dev").read([TASK, "nobody"])
    assert readings.groups.keys() == {TASK} and readings.links.keys() == {TASK}
    return readings.groups[TASK]


def test_v2(tmp_path: Path) -> None:
    groups = Cgroups(Layout.V2, [(frozenset({"cpu", "memory", "pids"}), tmp_path)], "pyswarm")
    write(
        tmp_path / "pyswarm" / TASK,
        {
            "memory.current": "10000\n",
            "memory.stat": "anon 5000\nfile 4000\ninactive_file 3000\nworkingset_refault_anon 0\n",
            "memory.max": "max\n",
            "memory.swap.max": "65536\n",
            "memory.peak": "20000\n",
            "memory.events": "low 0\noom 3\noom_kill 2\n",
            "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 9\nnr_throttled 4\n"
            "throttled_usec 750000\n",
            "cpu.max": "50000 100000\n",
            "cpu.weight": "39\n",
            "pids.current": "6\n",
            "pids.max": "100\n",
            "cgroup.procs": "10\n11\n",
        },
    )
    assert read(groups, tmp_path) == GroupFigures(
        cpu=2.5,
        cpu_user=2.0,
        cpu_system=0.5,
        periods=9,
        throttled_periods=4,
        throttled=0.75,
        cpu_quota=50000,
        cpu_period=100000,
        cpu_shares=998,
        memory=10000,
        memory_peak=20000,
        working_set=7000,
        rss=5000,
        cache=4000,
        swap=None,
        memory_limit=0,
        memory_swap_limit=65536,
        oom_kills=2,
        processes=2,
        threads=6,
        threads_limit=100,
    )


@pytest.mark.parametrize("layout", [Layout.V1, Layout.HYBRID])
def test_v1(tmp_path: Path, layout: Layout) -> None:
    mounts = [(frozenset(name.split(",")), tmp_path / name) for name in ("memory", "cpu,cpuacct", "pids")]
    groups = Cgroups(layout, mounts, "pyswarm")
    write(
        tmp_path / "memory/pyswarm" / TASK,
        {
            "memory.usage_in_bytes": "16384\n",
            "memory.stat": STAT_V1,
            "memory.max_usage_in_bytes": "30000\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
        },
    )
    write(
        tmp_path / "cpu,cpuacct/pyswarm" / TASK,
        {
            "cpuacct.usage": "1500000000\n",
            "cpuacct.usage_user": "1000000000\n",
            "cpuacct.usage_sys": "500000000\n",
            "cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 250000000\n",
            "cpu.cfs_quota_us": "-1\n",
            "cpu.cfs_period_us": "100000\n",
            "cpu.shares": "512\n",
        },
    )
    write(
        tmp_path / "pids/pyswarm" / TASK,
        {"pids.current": "2\n", "pids.max": "max\n", "cgroup.procs": "1\n2\n3\n"},
    )
    assert read(groups, tmp_path) == GroupFigures(
        cpu=1.5,
        cpu_user=1.0,
        cpu_system=0.5,
        periods=3,
        throttled_periods=1,
        throttled=0.25,
        cpu_quota=0,
        cpu_period=100000,
        cpu_shares=512,
        memory=16384,
        memory_peak=30000,
        working_set=15384,
        rss=8192,
        cache=4096,
        swap=None,
        memory_limit=0,
        memory_swap_limit=0,
        oom_kills=5,
        processes=3,
        threads=2,
        threads_limit=0,
    )


def test_a_machine_that_counts_only_cpu(tmp_path: Path) -> None:
    groups = Cgroups(Layout.V1, [(frozenset({"cpuacct"}), tmp_path)], "pyswarm")
    write(tmp_path / "pyswarm" / TASK, {"cpuacct.usage": "7\n"})
    figures = read(groups, tmp_path)
    assert figures.cpu == 7e-9 and figures.memory is None and figures.working_set is None and figures.threads is None


def test_links_are_seen_from_the_container() -> None:
    found = links(NET_DEV, [TASK, "other"])
    assert found == {
        TASK: LinkFigures(
            received=11,
            received_packets=12,
            received_errors=13,
            received_dropped=14,
            sent=18446744073709551615,
            sent_packets=2,
            sent_errors=3,
            sent_dropped=4,
        )
    }
    assert links("", [TASK]) == {}


def test_nothing_is_read_of_nobody(tmp_path: Path) -> None:
    groups = Cgroups(Layout.V1, [], "pyswarm")
    readings = Kernel(groups, tmp_path / "none").read([TASK])
    assert not readings.groups and not readings.links
