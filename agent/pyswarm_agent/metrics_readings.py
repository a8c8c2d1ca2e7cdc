"""What the kernel counts of tasks: their control groups, and their links. Read in a thread: a read of `memory.stat`
alone may take 0.1 ms, and each gives the interpreter's lock away, so the event loop is not held up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pyswarm_agent.network.links import host_end
from pyswarm_agent.runtime.cgroups import Layout

T = TypeVar("T")
# So that its own namespace's are read, whatever thread reads.
DEVICES = Path("/proc/thread-self/net/dev")
_NONE: Mapping[str, int] = {}
_UNLIMITED = 1 << 62  # "no limit" of v1 is the largest multiple of the page size
_MAX_FILE = 16 * 1024


class Groups(Protocol):
    """Of runtime.cgroups.Cgroups."""

    layout: Layout

    def folder(self, controller: str, task_id: str) -> Path | None: ...
    def oom_kills(self, task_id: str) -> int: ...


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Seconds and bytes. None: this kernel does not count it. A limit of 0 is none."""

    cpu: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled: float | None = None
    cpu_quota: int = 0  # µs in each period; 0 = none
    cpu_period: int | None = None  # µs
    cpu_shares: int | None = None
    memory: int | None = None
    memory_peak: int | None = None
    working_set: int | None = None
    rss: int | None = None
    cache: int | None = None
    swap: int | None = None
    memory_limit: int = 0
    memory_swap_limit: int = 0
    oom_kills: int = 0
    processes: int | None = None
    threads: int | None = None
    threads_limit: int = 0


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """As the container sees it: what the host's end sends, it receives."""

    received: int
    received_packets: int
    received_errors: int
    received_dropped: int
    sent: int
    sent_packets: int
    sent_errors: int
    sent_dropped: int


@dataclass(frozen=True, slots=True)
class Readings:
    """By task id; a task without a group, or a link, is not in it."""

    groups: Mapping[str, GroupFigures]
    links: Mapping[str, LinkFigures]


class Kernel:
    """Blocks: call it in a thread."""

    def __init__(self, groups: Groups, devices: Path = DEVICES) -> None:
        self._groups = groups
        self._devices = devices

    def read(self, task_ids: Iterable[str]) -> Readings:
        ids = list(task_ids)
        read = _v2 if self._groups.layout is Layout.V2 else _v1
        groups = {task_id: figures for task_id in ids if (figures := read(self._groups, task_id)) is not None}
        return Readings(groups, links(_text(self._devices) or "", ids))


def links(net_dev: str, task_ids: Iterable[str]) -> dict[str, LinkFigures]:
    """From the text of /proc/net/dev."""
    by_device = {host_end(task_id): task_id for task_id in task_ids}
    found = {}
    for line in net_dev.splitlines():
        name, colon, rest = line.partition(":")
        task_id = by_device.get(name.strip()) if colon else None
        if task_id is not None:
            n = [int(field) for field in rest.split()]
            found[task_id] = LinkFigures(n[8], n[9], n[10], n[11], n[0], n[1], n[2], n[3])
    return found


def _v2(groups: Groups, task_id: str) -> GroupFigures | None:
    folder = groups.folder("memory", task_id)
    if folder is None or (memory := _number(folder / "memory.current")) is None:
        return None
    cpu = _keyed(folder / "cpu.stat")
    stat = _keyed(folder / "memory.stat")
    quota, _, period = (_text(folder / "cpu.max") or "max 100000").strip().partition(" ")
    weight = _number(folder / "cpu.weight")
    return GroupFigures(
        cpu=_seconds(cpu.get("usage_usec"), 1e6),
        cpu_user=_seconds(cpu.get("user_usec"), 1e6),
        cpu_system=_seconds(cpu.get("system_usec"), 1e6),
        periods=cpu.get("nr_periods"),
        throttled_periods=cpu.get("nr_throttled"),
        throttled=_seconds(cpu.get("throttled_usec"), 1e6),
        cpu_quota=int(quota) if quota.isdigit() else 0,
        cpu_period=int(period) if period.isdigit() else None,
        # The runtime turns shares into a weight; this is the way back.
        cpu_shares=None if weight is None else 2 + (weight - 1) * 262142 // 9999,
        memory=memory,
        memory_peak=_number(folder / "memory.peak"),
        working_set=max(0, memory - stat.get("inactive_file", 0)),
        rss=stat.get("anon"),
        cache=stat.get("file"),
        swap=_number(folder / "memory.swap.current"),
        memory_limit=_number(folder / "memory.max") or 0,
        memory_swap_limit=_number(folder / "memory.swap.max") or 0,
        oom_kills=groups.oom_kills(task_id),
        processes=_lines(folder / "cgroup.procs"),
        threads=_number(folder / "pids.current"),
        threads_limit=_number(folder / "pids.max") or 0,
    )


def _v1(groups: Groups, task_id: str) -> GroupFigures | None:
    at = _At(groups, task_id)
    memory, cpu = at("memory", "memory.usage_in_bytes", _number), at("cpuacct", "cpuacct.usage", _number)
    if memory is None and cpu is None:
        return None
    stat = at("memory", "memory.stat", _keyed) or _NONE
    throttling = at("cpu", "cpu.stat", _keyed) or _NONE
    # A container's processes may make groups below their own: the totals are those of all of them.
    return GroupFigures(
        cpu=_seconds(cpu, 1e9),
        cpu_user=_seconds(at("cpuacct", "cpuacct.usage_user", _number), 1e9),
        cpu_system=_seconds(at("cpuacct", "cpuacct.usage_sys", _number), 1e9),
        periods=throttling.get("nr_periods"),
        throttled_periods=throttling.get("nr_throttled"),
        throttled=_seconds(throttling.get("throttled_time"), 1e9),
        cpu_quota=max(0, at("cpu", "cpu.cfs_quota_us", _number) or 0),
        cpu_period=at("cpu", "cpu.cfs_period_us", _number),
        cpu_shares=at("cpu", "cpu.shares", _number),
        memory=memory,
        memory_peak=at("memory", "memory.max_usage_in_bytes", _number),
        working_set=None if memory is None else max(0, memory - stat.get("total_inactive_file", 0)),
        rss=stat.get("total_rss"),
        cache=stat.get("total_cache"),
        swap=stat.get("total_swap"),
        memory_limit=_limit(at("memory", "memory.limit_in_bytes", _number)),
        memory_swap_limit=_limit(at("memory", "memory.memsw.limit_in_bytes", _number)),
        oom_kills=groups.oom_kills(task_id),
        processes=at("pids" if groups.folder("pids", task_id) else "memory", "cgroup.procs", _lines),
        threads=at("pids", "pids.current", _number),
        threads_limit=at("pids", "pids.max", _number) or 0,
    )


class _At:
    """Reads a file of one controller's group; None without the controller."""

    def __init__(self, groups: Groups, task_id: str) -> None:
        self._groups = groups
        self._task_id = task_id

    def __call__(self, controller: str, name: str, read: Callable[[Path], T | None]) -> T | None:
        folder = self._groups.folder(controller, self._task_id)
        return None if folder is None else read(folder / name)


def _text(path: Path) -> str | None:
    """As few steps as there can be: a scrape reads some twenty files of each container."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(descriptor, _MAX_FILE):
            parts.append(part)
        return b"".join(parts).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _number(path: Path) -> int | None:
    """None: the file is not there, or says "max"."""
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _keyed(path: Path) -> dict[str, int]:
    """A file of "key number" lines."""
    found = {}
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def _lines(path: Path) -> int | None:
    text = _text(path)
    return None if text is None else len(text.splitlines())


def _seconds(count: int | None, unit: float) -> float | None:
    return None if count is None else count / unit


def _limit(count: int | None) -> int:
    return 0 if count is None or count >= _UNLIMITED else count
