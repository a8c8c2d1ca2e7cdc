"""Control groups: which layout this machine has, the tasks' groups, what they count, and their removal.

A task's group is PARENT/TASK_ID below the root of the agent's cgroup namespace, in every hierarchy. The OCI runtime
makes it; the agent makes and removes the parent, and removes what a runtime that was killed left behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


class Layout(Enum):
    V1 = "v1"
    HYBRID = "hybrid"  # v1 controllers, with an (empty) v2 hierarchy on `unified` beside them
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a task's group counts; None where the controller is not there."""

    memory: int | None  # bytes, page cache included
    memory_limit: int | None  # bytes; None also for no limit
    cpu_seconds: float | None
    pids: int | None


class Cgroups:
    """One agent's part of the tree. `mounts` are (controllers, mount point) of every cgroup mount; see `detect`."""

    def __init__(self, layout: Layout, mounts: Sequence[tuple[frozenset[str], Path]], parent: str) -> None:
        self.layout = layout
        self.parent = parent
        self._points = [point for _, point in mounts]
        self._by_controller = {name: point for names, point in mounts for name in names}

    @classmethod
    def detect(cls, parent: str, *, mountinfo: str | None = None, root: Path = ROOT) -> Cgroups:
        """Reads the mount table (or the text given). OSError: there is no /proc."""
        text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        v1: list[tuple[frozenset[str], Path]] = []
        v2: Path | None = None
        for point, kind, options in _cgroup_mounts(text, root):
            if kind == "cgroup":
                v1.append((frozenset(options), point))
            else:
                v2 = point
        if v2 is not None and not v1:
            return cls(Layout.V2, [(frozenset(_V2_CONTROLLERS), v2)], parent)
        if v2 is not None:
            return cls(Layout.HYBRID, [*v1, (frozenset({""}), v2)], parent)
        return cls(Layout.V1, v1, parent)

    def path_of(self, task_id: str) -> str:
        """For the OCI config's `cgroupsPath`."""
        return f"/{self.parent}/{task_id}"

    def has(self, controller: str) -> bool:
        return controller in self._by_controller

    def counts_swap(self) -> bool:
        """Whether a limit on swap can be set: setting one that the kernel does not count fails the whole start."""
        if self.layout is Layout.V2:
            parent = self._by_controller["memory"] / self.parent
            return any((folder / "memory.swap.max").exists() for folder in (parent, *_children(parent)))
        point = self._by_controller.get("memory")
        return point is not None and (point / "memory.memsw.limit_in_bytes").exists()

    def make_parent(self) -> None:
        """Makes the parent and, on v2, passes the controllers on to its children. OSError: not permitted.

        On v2 a group with processes of its own may not pass controllers on: in a container or a lab, move the
        processes of the namespace's root into a leaf first.
        """
        for point in self._points:
            folder = point
            for part in Path(self.parent).parts:
                folder = folder / part
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    if self.layout is not Layout.V2 and self._by_controller.get("cpuset") == point:
                        # On v1 a new cpuset is empty, and no process may enter an empty one.
                        for name in ("cpuset.cpus", "cpuset.mems"):
                            (folder / name).write_text((folder.parent / name).read_text())
                if self.layout is Layout.V2:
                    _delegate(folder.parent)
        if self.layout is Layout.V2:
            _delegate(self._points[0] / self.parent)

    def remove(self, task_id: str) -> bool:
        """Kills what is left in the task's groups and removes them; False when some process has not ended yet."""
        clean = True
        for point in self._points:
            clean = _remove_tree(point / self.parent / task_id) and clean
        return clean

    def remove_parent(self) -> None:
        """If no task's group is in it; a parent with slashes goes level by level."""
        for point in self._points:
            folder = point / self.parent
            while folder != point:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    break
                folder = folder.parent

    def tasks(self) -> Sequence[str]:
        """Ids that have a group in any hierarchy."""
        return sorted({child.name for point in self._points for child in _children(point / self.parent)})

    def pids(self, task_id: str) -> Sequence[int]:
        """All processes of the task, by the agent's own numbering."""
        folder = self.folder("pids" if self.has("pids") else "memory", task_id)
        if folder is None:
            return ()
        found: list[int] = []
        for path in (folder, *_descendants(folder)):
            with contextlib.suppress(OSError):
                found += [int(line) for line in (path / "cgroup.procs").read_text().split()]
        return found

    def oom_kills(self, task_id: str) -> int:
        """How many of the task's processes the kernel has killed for memory; 0 when the group is gone."""
        folder = self.folder("memory", task_id)
        if folder is None:
            return 0
        if self.layout is Layout.V2:
            return max(_keyed(folder / "memory.events", "oom_kill"), _keyed(folder / "memory.events", "oom_group_kill"))
        return _keyed(folder / "memory.oom_control", "oom_kill")

    def usage(self, task_id: str) -> Usage:
        if self.layout is Layout.V2:
            folder = self._points[0] / self.parent / task_id
            micros = _keyed(folder / "cpu.stat", "usage_usec", missing=-1)
            return Usage(
                memory=_number(folder / "memory.current"),
                memory_limit=_number(folder / "memory.max"),
                cpu_seconds=micros / 1e6 if micros >= 0 else None,
                pids=_number(folder / "pids.current"),
            )
        memory, cpu, pids = (self.folder(name, task_id) for name in ("memory", "cpuacct", "pids"))
        limit = _number(memory / "memory.limit_in_bytes") if memory else None
        nanos = _number(cpu / "cpuacct.usage") if cpu else None
        return Usage(
            memory=_number(memory / "memory.usage_in_bytes") if memory else None,
            # "No limit" is the largest multiple of the page size there.
            memory_limit=None if limit is None or limit >= 1 << 62 else limit,
            cpu_seconds=None if nanos is None else nanos / 1e9,
            pids=_number(pids / "pids.current") if pids else None,
        )

    def folder(self, controller: str, task_id: str) -> Path | None:
        """Of the task's group in this controller's hierarchy; None without such a controller."""
        point = self._by_controller.get(controller)
        return None if point is None else point / self.parent / task_id


def _cgroup_mounts(mountinfo: str, root: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """(mount point, cgroup or cgroup2, super options) of what is visible at `root` and below: a later mount hides an
    earlier one at its place or deeper."""
    visible: dict[Path, tuple[str, list[str]]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if not right:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4]))
        if not (point.is_relative_to(root) or root.is_relative_to(point)):
            continue
        kind, _, super_options = right.split(" ", 2)
        for hidden in [p for p in visible if p.is_relative_to(point)]:
            del visible[hidden]
        visible[point] = (kind, super_options.split(","))
    for point, (kind, options) in visible.items():
        if kind in ("cgroup", "cgroup2"):
            yield point, kind, options


def _delegate(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    enabled = (folder / "cgroup.subtree_control").read_text().split()
    wanted = [f"+{name}" for name in _V2_CONTROLLERS if name in available and name not in enabled]
    if wanted:
        (folder / "cgroup.subtree_control").write_text(" ".join(wanted))


def _remove_tree(folder: Path) -> bool:
    """Deepest first. True when it is gone."""
    for path in (*reversed(list(_descendants(folder))), folder):
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            with contextlib.suppress(OSError):
                for line in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)
            return False
    return True


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _descendants(folder: Path) -> Iterator[Path]:
    """Parents before their children."""
    for child in _children(folder):
        yield child
        yield from _descendants(child)


def _number(path: Path) -> int | None:
    """None: the file is not there, or says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _keyed(path: Path, key: str, missing: int = 0) -> int:
    """The number beside `key` in a file of "key number" lines."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return missing
