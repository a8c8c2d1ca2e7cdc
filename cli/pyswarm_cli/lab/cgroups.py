"""The lab's share of the machine's cgroups: one group a host, in every hierarchy of the machine, v1 and v2 alike.

A host's group is its processes' cgroup namespace root. On v2, where a group with processes may not delegate
controllers, the host's own processes live in the leaf `daemons` below it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TOP = "pyswarm-lab"
BASE = Path("/sys/fs/cgroup")
LEAF = "daemons"


def hierarchies() -> list[tuple[str, Path]]:
    """(mount option, mount point) of each v1 hierarchy of the machine; [("", /sys/fs/cgroup)] on pure v2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        point = Path(fields.split()[4])
        if kind == "cgroup":
            keep = [
                o for o in options.split(",") if o not in ("rw", "ro", "xattr") and not o.startswith("release_agent")
            ]
            named = [o for o in keep if o.startswith("name=")]
            found.append((",".join(["none", *named] if named else keep), point))
        elif kind == "cgroup2" and point == BASE:
            return [("", BASE)]
    return found


def group(point: Path, lab: str, host: str) -> Path:
    return point / TOP / lab / host


def make(lab: str, host: str) -> list[Path]:
    """The groups that a process of this host has to be moved into, made if need be."""
    leaves = []
    for option, point in hierarchies():
        path = point
        for part in (TOP, lab, host):
            if not option:
                _delegate(path)
            path = path / part
            path.mkdir(exist_ok=True)
            if "cpuset" in option.split(","):
                # a v1 cpuset takes no process before it is told which processors and memory it has
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (path / name).read_text().strip():
                        (path / name).write_text((path.parent / name).read_text())
        leaves.append(path)
    return leaves


def _delegate(path: Path) -> None:
    wanted = (path / "cgroup.controllers").read_text().split()
    for controller in wanted:
        with contextlib.suppress(OSError):
            (path / "cgroup.subtree_control").write_text(f"+{controller}")


def pids(lab: str, host: str) -> list[int]:
    """All processes of the host, containers included, by the machine's pids."""
    found: set[int] = set()
    for option, point in hierarchies():
        if option in ("", "pids") or "memory" in option.split(","):
            for folder, _, files in os.walk(group(point, lab, host)):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError):
                        found.update(int(p) for p in (Path(folder) / "cgroup.procs").read_text().split())
    return sorted(found)


def remove(lab: str, host: str | None = None) -> None:
    """Removes the host's groups (or the lab's), deepest first, and the parents that are empty then."""
    for _, point in hierarchies():
        top = group(point, lab, host) if host else point / TOP / lab
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        for parent in (point / TOP / lab, point / TOP):
            with contextlib.suppress(OSError):
                parent.rmdir()


def left(lab: str) -> list[Path]:
    return [point / TOP / lab for _, point in hierarchies() if (point / TOP / lab).exists()]
