"""How a container ended: by what conmon wrote down, or, when conmon was killed before, by what the kernel tells."""

from __future__ import annotations

import asyncio
import os
import time

from pyswarm_agent.interfaces import ContainerExit
from pyswarm_agent.runtime import processes
from pyswarm_agent.runtime.cgroups import Cgroups
from pyswarm_agent.runtime.monitor import Identity
from pyswarm_agent.runtime.paths import TaskPaths
from pyswarm_agent.runtime.processes import Process

LOST = 255  # the code of a container whose end nobody saw: the host or conmon went first
_REAP_TIMEOUT = 2.0  # seconds; without a parent that cares, a process may stay a zombie for a while
_POLL = 0.02


class Exits:
    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups

    def written(self, paths: TaskPaths) -> ContainerExit | None:
        """conmon writes the code when it has reaped the container and read all of its output."""
        try:
            code, at = int(paths.exit.read_text()), paths.exit.stat().st_mtime
        except (OSError, ValueError):
            return None
        return ContainerExit(code, self._was_oom(paths), at)

    async def wait(self, paths: TaskPaths, identity: Identity) -> ContainerExit:
        if (end := self.written(paths)) is not None:
            return end
        if identity.conmon is not None:
            with identity.conmon.opened() as fd:
                if fd is not None:
                    await processes.ended(fd)
        if (end := self.written(paths)) is not None:
            return end
        return await self._orphaned(paths, identity.container)

    async def _orphaned(self, paths: TaskPaths, container: Process) -> ContainerExit:
        """conmon was killed. The container lives on, without a log, until it writes something or ends."""
        status: int | None = None
        with container.opened() as fd:
            if fd is not None:
                await processes.ended(fd)
                status = await _status(container, fd)
        at = time.time()
        code = LOST if status is None else os.waitstatus_to_exitcode(status)
        end = ContainerExit(128 - code if code < 0 else code, self._was_oom(paths), at)
        # As conmon would have: who asks again gets the same answer.
        if paths.exit_dir.exists():
            paths.exit.write_text(str(end.code))
        return end

    def lost(self, paths: TaskPaths) -> ContainerExit:
        """For a container of which the run directory knows nothing (more)."""
        return ContainerExit(LOST, False, time.time())

    def _was_oom(self, paths: TaskPaths) -> bool:
        """The kernel's own count while the cgroup is there, and conmon's file."""
        return paths.oom.exists() or self._cgroups.oom_kills(paths.task_id) > 0


async def _status(container: Process, fd: int) -> int | None:
    """A zombie tells its status in /proc, a reaped process through its pidfd (Linux 6.15 and later)."""
    deadline = time.monotonic() + _REAP_TIMEOUT
    while True:
        for status in (container.zombie_status(), processes.exit_status(fd)):
            if status is not None:
                return status
        if time.monotonic() > deadline or not container.is_zombie():
            return processes.exit_status(fd)
        await asyncio.sleep(_POLL)
