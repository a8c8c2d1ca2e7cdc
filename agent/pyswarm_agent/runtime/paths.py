"""The names of a task's files. Pure but for `check_id`'s refusal."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.logs import files as log_names
from pyswarm_agent.runtime.settings import RuntimeSettings

_REMEMBERED = 200  # tasks: their names take 1 MB
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_id(task_id: str) -> str:
    """An id becomes part of paths and command lines: anything that could leave its folder is refused."""
    if not _ID.fullmatch(task_id):
        raise ContainerFailure(f"the task id {task_id!r} has characters that no id has", final=True)
    return task_id


class TaskPaths:
    """`bundle` is the task's folder in the run directory, `data` the one that survives a reboot. Never changed; each
    name is made once, as a start asks for thirty."""

    def __init__(self, task_id: str, bundle: Path, data: Path) -> None:
        self.task_id = task_id
        self.bundle = bundle
        self.data = data

    @cached_property
    def config(self) -> Path:
        return self.bundle / "config.json"

    @cached_property
    def record(self) -> Path:
        """Ours, beside the OCI config: what other parts of the agent must know of a container that they adopt."""
        return self.bundle / "pyswarm.json"

    @cached_property
    def pid(self) -> Path:
        """Of the container's first process; written by the runtime at the end of `create`."""
        return self.bundle / "pid"

    @cached_property
    def conmon_pid(self) -> Path:
        return self.bundle / "conmon.pid"

    @cached_property
    def identity(self) -> Path:
        """Who the two processes are; written when `create` is through, so that without it `create` was interrupted."""
        return self.bundle / "identity.json"

    @cached_property
    def conmon_log(self) -> Path:
        return self.bundle / "conmon.log"

    @cached_property
    def ctl(self) -> Path:
        """conmon's fifo: window size, and "open the log anew"."""
        return self.bundle / "ctl"

    @cached_property
    def exit_dir(self) -> Path:
        return self.bundle / "exit"

    @cached_property
    def exit(self) -> Path:
        """The exit code in digits; its mtime is when the container ended."""
        return self.exit_dir / self.task_id

    @cached_property
    def persist(self) -> Path:
        return self.bundle / "persist"

    @cached_property
    def oom(self) -> Path:
        return self.persist / "oom"

    @cached_property
    def started(self) -> Path:
        """Its mtime is when the container was started."""
        return self.bundle / "started"

    @cached_property
    def fuse(self) -> Path:
        """Locked by the fuse of an exclusive task while it lives."""
        return self.bundle / "fuse"

    @cached_property
    def deleted(self) -> Path:
        """There from `delete` to `forget`. A container without it that the run directory does not know went with the
        host. (The other way round, a mark of what is there, would cost each start a file.)"""
        return self.data / "deleted"

    @cached_property
    def log(self) -> Path:
        return self.data / log_names.NAME

    @cached_property
    def volumes(self) -> Path:
        """Anonymous volumes, which end with the task."""
        return self.data / "volumes"


class Folders:
    """The runtime's folders, from its settings."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.containers = settings.run_dir / "containers"
        self.runtime_root = settings.run_dir / "runtime"
        self.tasks = settings.data_dir / "tasks"
        self.volumes = settings.data_dir / "volumes"

        self._paths: dict[str, TaskPaths] = {}

    def of(self, task_id: str) -> TaskPaths:
        found = self._paths.get(task_id)
        if found is None:
            check_id(task_id)
            if len(self._paths) >= _REMEMBERED:
                self._paths.clear()
            found = self._paths[task_id] = TaskPaths(task_id, self.containers / task_id, self.tasks / task_id)
        return found
