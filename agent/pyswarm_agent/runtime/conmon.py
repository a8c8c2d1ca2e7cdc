"""Containers by an OCI runtime under conmon. Everything is known from disk: an agent that was killed loses nothing.

Between `create` and `start` the container's first process waits; conmon is the parent of it, writes the exit code, and
ends. Whoever waits watches conmon by pidfd, and the container's process itself when conmon was killed.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyswarm_agent.interfaces import ContainerExit, ContainerFailure, ContainerRequest, ContainerState
from pyswarm_agent.logs import files as log_names
from pyswarm_agent.logs.rotation import Rotated
from pyswarm_agent.runtime import bundle, command, host, kernel, processes
from pyswarm_agent.runtime.cgroups import Cgroups, Usage
from pyswarm_agent.runtime.execute import execute
from pyswarm_agent.runtime.exits import Exits
from pyswarm_agent.runtime.monitor import Identity, Monitor, is_being_spawned
from pyswarm_agent.runtime.oci import OciRuntime
from pyswarm_agent.runtime.paths import Folders, TaskPaths
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_agent.runtime.volumes import Volumes
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.log import get_logger

KILL_TIMEOUT = 10.0  # seconds in which killed processes must be gone
_CONMON_GRACE = 2.0  # seconds that conmon gets, after its container's end, to write down what it knows
_RETRY = 0.02

log = get_logger("agent.runtime")


class ConmonRuntime:
    """Raises PreconditionFailed when a program, the seccomp profile or cgroups are not to be had on this host."""

    def __init__(self, settings: RuntimeSettings) -> None:
        programs = host.find_programs(settings)
        self._folders = Folders(settings)
        self._cgroups = Cgroups.detect(settings.cgroup_parent)
        self._facts = self._read_facts(settings)
        self._oci = OciRuntime(programs.runtime, self._folders.runtime_root, self._cgroups.layout)
        self._monitor = Monitor(programs.conmon, self._oci, settings.conmon_log_level)
        self._volumes = Volumes(self._folders.volumes)
        self._exits = Exits(self._cgroups)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._creating = 0
        self._has_parent = False
        bundle.remove_folder(self._oci.scratch)
        for folder in (
            self._oci.scratch,
            self._folders.containers,
            self._folders.runtime_root,
            self._folders.tasks,
            self._folders.volumes,
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # of no concern to this host's users
        kernel.scatter(self._folders.tasks)

    @property
    def description(self) -> str:
        """For the node's description: crun, runc …"""
        return self._oci.name

    def _read_facts(self, settings: RuntimeSettings) -> host.HostFacts:
        try:
            self._cgroups.make_parent()
            facts = host.read_facts(settings, counts_swap=self._cgroups.counts_swap())
            self._cgroups.remove_parent()
        except OSError as error:
            raise PreconditionFailed(
                f"no cgroups can be made on this host ({error.strerror}: {error.filename}): the agent needs root, and "
                "on cgroup v2 a cgroup whose own processes are in a leaf"
            ) from error
        return facts

    # ---- making ----

    async def create(self, request: ContainerRequest) -> int:
        paths = self._folders.of(request.task_id)
        async with self._locks[request.task_id]:
            if (existing := await self._existing(paths)) is not None:
                return existing.container.pid
            self._creating += 1
            try:
                self._make_parent()
                cgroup = self._cgroups.path_of(request.task_id)
                await asyncio.to_thread(bundle.write, request, paths, self._facts, self._volumes, cgroup)
                identity = await self._monitor.create(paths, terminal=request.container.tty)
            except ContainerFailure:
                await self._remove(paths)
                raise
            except OSError as error:
                await self._remove(paths)
                raise ContainerFailure(
                    f"the container's files could not be written: {error.strerror or error}", final=False
                ) from error
            finally:
                self._creating -= 1
        return identity.container.pid

    async def _existing(self, paths: TaskPaths) -> Identity | None:
        """A container that was created and not ended; what is there otherwise is removed. ContainerFailure (final) for
        one that was started and has ended: a task runs once."""
        if not paths.bundle.exists():
            return None
        identity = Identity.load(paths.identity)
        if identity is not None and identity.container.is_alive():
            return identity
        if paths.started.exists():
            raise ContainerFailure("this task's container has run already", final=True)
        await self._remove(paths)
        return None

    def _make_parent(self) -> None:
        if self._has_parent:
            return
        try:
            self._cgroups.make_parent()
        except OSError as error:
            raise ContainerFailure(f"no cgroup can be made on this host: {error.strerror}", final=False) from error
        self._has_parent = True

    async def start(self, task_id: str) -> None:
        """Once: a second time does nothing. ContainerFailure."""
        paths = self._folders.of(task_id)
        async with self._locks[task_id]:
            if paths.started.exists():
                return
            if not paths.identity.exists():
                raise ContainerFailure("the container is gone: it cannot be started", final=False)
            await self._oci.start(task_id)
            paths.started.touch()

    # ---- watching ----

    async def wait(self, task_id: str) -> ContainerExit:
        paths = self._folders.of(task_id)
        while (identity := Identity.load(paths.identity)) is None:
            # Not (or no longer) there; or being created at this moment, and then the lock is taken.
            lock = self._locks.get(task_id)
            if lock is None or not lock.locked():
                return self._exits.lost(paths)
            async with lock:
                pass
        return await self._exits.wait(paths, identity)

    async def states(self) -> Sequence[ContainerState]:
        found = [await self._state(self._folders.of(task_id)) for task_id in _names(self._folders.containers)]
        here = {state.task_id for state in found}
        for task_id in _names(self._folders.tasks):
            if task_id not in here and not (paths := self._folders.of(task_id)).deleted.exists():
                found.append(ContainerState(task_id, 0, False, self._exits.lost(paths), _mtime(paths.data)))
        return found

    async def _state(self, paths: TaskPaths) -> ContainerState:
        identity = Identity.load(paths.identity)
        started_at = _mtime(paths.started)
        if identity is None:  # `create` was interrupted
            return ContainerState(paths.task_id, 0, False, None, 0)
        if (end := self._exits.written(paths)) is not None:
            return ContainerState(paths.task_id, 0, False, end, started_at)
        if identity.container.is_alive():
            if not started_at and await self._was_started(paths):
                paths.started.touch()
                started_at = _mtime(paths.started)
            return ContainerState(paths.task_id, identity.container.pid, bool(started_at), None, started_at)
        # Not alive: conmon is about to write the exit code, or was killed.
        try:
            async with asyncio.timeout(_CONMON_GRACE):
                end = await self._exits.wait(paths, identity)
        except TimeoutError:
            end = self._exits.lost(paths)
        return ContainerState(paths.task_id, 0, False, end, started_at)

    async def _was_started(self, paths: TaskPaths) -> bool:
        """The agent may have been killed between starting a container and writing that down."""
        state = await self._oci.state(paths.task_id)
        return state is not None and state.status not in ("created", "creating", "stopped")

    def log_files(self, task_id: str) -> Sequence[Path]:
        return log_names.listed(self._folders.of(task_id).data)

    def log_folder(self, task_id: str) -> Path:
        return self._folders.of(task_id).data

    def may_print(self, task_id: str) -> bool:
        """Whether its log may still grow: conmon may be reading what a container printed before its end."""
        paths = self._folders.of(task_id)
        identity = Identity.load(paths.identity)
        if identity is None or paths.exit.exists():
            return False
        return identity.container.is_alive() or (identity.conmon is not None and identity.conmon.is_alive())

    def rotated_logs(self) -> Sequence[Rotated]:
        """The logs that grow, with their limits."""
        found = []
        for task_id in _names(self._folders.containers):
            paths = self._folders.of(task_id)
            record = bundle.read_record(paths)
            if record is not None and record.log_max_size and not paths.exit.exists():
                found.append(Rotated(task_id, paths.data, paths.ctl, record.log_max_size, record.log_max_file))
        return found

    def usage(self) -> Mapping[str, Usage]:
        """By task id, of all containers that are there."""
        return {task_id: self._cgroups.usage(task_id) for task_id in _names(self._folders.containers)}

    # ---- acting on it ----

    async def kill(self, task_id: str, signal: str) -> None:
        number = command.signal_number(signal)
        identity = Identity.load(self._folders.of(task_id).identity)
        if identity is None:
            return
        # Its first process is the first of a pid namespace: the kernel kills all others with it.
        with identity.container.opened() as fd:
            if fd is not None:
                processes.send(fd, number)

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        """ContainerFailure when the container does not run."""
        paths = self._folders.of(task_id)
        identity = Identity.load(paths.identity)
        if identity is None or not paths.started.exists() or not identity.container.is_alive():
            raise ContainerFailure("the container does not run", final=False)
        return await execute(self._oci, paths, argv, timeout)

    # ---- ending ----

    async def delete(self, task_id: str) -> None:
        """ContainerFailure when something could not be removed; to be called again then."""
        paths = self._folders.of(task_id)
        async with self._locks[task_id]:
            await self._remove(paths)
        self._remove_parent()

    async def forget(self, task_id: str) -> None:
        paths = self._folders.of(task_id)
        async with self._locks[task_id]:
            await self._remove(paths)
            await asyncio.to_thread(shutil.rmtree, paths.data, ignore_errors=True)
        self._locks.pop(task_id, None)
        self._remove_parent()

    async def _remove(self, paths: TaskPaths) -> None:
        identity = Identity.load(paths.identity)
        if identity is not None:
            await _end(identity)
        else:
            await _end_unfinished(paths)
        await self._oci.delete(paths.task_id)
        deadline = time.monotonic() + KILL_TIMEOUT
        while not self._cgroups.remove(paths.task_id):
            if time.monotonic() > deadline:
                raise ContainerFailure("the container's processes do not end; its cgroup is still there", final=False)
            await asyncio.sleep(_RETRY)
        try:
            await asyncio.to_thread(bundle.remove, paths)
        except OSError as error:
            raise ContainerFailure(f"the container's files could not be deleted: {error}", final=False) from error

    def _remove_parent(self) -> None:
        """When nothing needs it; nobody can begin to need it in here, as nothing is awaited."""
        if not self._creating and not _names(self._folders.containers):
            self._cgroups.remove_parent()
            self._has_parent = False


async def _end(identity: Identity) -> None:
    """Both processes, with the container's whole pid namespace; returns when they have ended."""
    with identity.container.opened() as fd:
        if fd is not None:
            processes.send(fd, signal.SIGKILL)
            await _within(KILL_TIMEOUT, fd, "the container's first process does not end")
    if identity.conmon is None:
        return
    with identity.conmon.opened() as fd:
        if fd is not None:
            try:
                await _within(_CONMON_GRACE, fd, "")
            except ContainerFailure:
                processes.send(fd, signal.SIGKILL)
                await _within(KILL_TIMEOUT, fd, "conmon does not end")


async def _end_unfinished(paths: TaskPaths) -> None:
    """A `create` that was interrupted: conmon and the runtime may still be at it, and would be in the next one's way.
    All of them have the bundle's path among their arguments, but for the moments between fork and exec: the first such
    is told by conmon's log being locked, later ones by looking again after a pause."""
    deadline = time.monotonic() + KILL_TIMEOUT
    clean = not paths.bundle.exists()
    while not clean:
        found = processes.with_argument(str(paths.bundle))
        for process in found:
            with process.opened() as fd:
                if fd is not None:
                    processes.send(fd, signal.SIGKILL)
        if found or is_being_spawned(paths):
            if time.monotonic() > deadline:
                raise ContainerFailure("an interrupted creation of the container does not end", final=False)
            await asyncio.sleep(_RETRY)
            continue
        await asyncio.sleep(_RETRY)
        clean = not processes.with_argument(str(paths.bundle))


async def _within(seconds: float, fd: int, sentence: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await processes.ended(fd)
    except TimeoutError:
        raise ContainerFailure(sentence, final=False) from None


def _names(folder: Path) -> Sequence[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return ()


def _mtime(path: Path) -> float:
    """0 when it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
