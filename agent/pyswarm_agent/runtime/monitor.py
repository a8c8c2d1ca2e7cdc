"""Starts conmon for one container: it runs the OCI runtime's `create`, holds the container's output, writes its log and
its exit code, and outlives the agent."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.runtime import failures, processes
from pyswarm_agent.runtime.oci import SCRATCH, OciRuntime
from pyswarm_agent.runtime.paths import TaskPaths
from pyswarm_agent.runtime.processes import Process
from pyswarm_core import files

CREATE_TIMEOUT = 60.0  # seconds


class Identity(msgspec.Struct, frozen=True):
    """identity.json."""

    container: Process
    conmon: Process | None

    def save(self, path: Path) -> None:
        # Half a file would make a container that runs look like one that was never finished.
        files.put(path, msgspec.json.encode(self))

    @staticmethod
    def load(path: Path) -> Identity | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Identity)
        except (OSError, msgspec.DecodeError):
            return None


class _Report(msgspec.Struct):
    """conmon's one line on the sync pipe: the container's pid, or -1 and why not."""

    data: int
    message: str = ""


class Monitor:
    def __init__(self, program: str, oci: OciRuntime, log_level: str) -> None:
        self._program = program
        self._oci = oci
        self._log_level = log_level

    async def create(self, paths: TaskPaths, *, terminal: bool) -> Identity:
        """The bundle is there; afterwards the container is created, not started. ContainerFailure."""
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        log = os.open(paths.conmon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)  # conmon has it from the fork on, until it is a daemon: see is_being_spawned
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv(paths, terminal=terminal),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                pass_fds=(write_end,),
                env=_environment(write_end, paths),
                # Of an OOM kill it also writes a file into its working directory.
                cwd=paths.bundle,
            )
        except OSError as error:
            os.close(read_end)
            raise ContainerFailure(f"conmon could not be started: {error.strerror}", final=False) from error
        finally:
            os.close(log)
            os.close(write_end)
        try:
            async with asyncio.timeout(CREATE_TIMEOUT):
                line = await _read_line(loop, read_end)
                await process.wait()  # the one that forked the lasting conmon; gone long before the line came
        except TimeoutError:
            raise ContainerFailure(
                f"the container was not created within {CREATE_TIMEOUT:.0f} s: this host is overloaded, or its runtime "
                "hangs",
                final=False,
            ) from None
        finally:
            os.close(read_end)
        return self._identity(line, paths)

    def _identity(self, line: bytes, paths: TaskPaths) -> Identity:
        try:
            report = msgspec.json.decode(line, type=_Report)
        except msgspec.DecodeError:
            report = _Report(-1)
        if report.data <= 0:
            raise failures.translate(report.message or paths.conmon_log.read_text(errors="replace"), "created")
        container = processes.find(report.data)
        if container is None:
            raise ContainerFailure("the container's first process ended before it was started", final=False)
        identity = Identity(container, find_conmon(paths))
        identity.save(paths.identity)
        return identity

    def _argv(self, paths: TaskPaths, *, terminal: bool) -> Sequence[str]:
        program, *arguments = self._oci.prefix
        return [
            self._program,
            *("--api-version", "1"),
            *("--cid", paths.task_id),
            *("--cuuid", paths.task_id),
            *("--name", paths.task_id),
            *("--runtime", _absolute(program)),
            *(f"--runtime-arg={argument}" for argument in arguments),
            *("--bundle", str(paths.bundle)),
            *("--container-pidfile", str(paths.pid)),
            *("--conmon-pidfile", str(paths.conmon_pid)),
            *("--exit-dir", str(paths.exit_dir)),
            *("--persist-dir", str(paths.persist)),
            *("--log-path", f"k8s-file:{paths.log}"),
            *("--log-level", self._log_level),
            # The exit code would wait for the disk otherwise.
            "--no-sync-log",
            "--full-attach",
            *(["--terminal"] if terminal else []),
        ]


def is_being_spawned(paths: TaskPaths) -> bool:
    """Whether somebody's conmon for this task is between its fork and its exec, where it cannot be told by its name."""
    return processes.holds_lock(paths.conmon_log)


def find_conmon(paths: TaskPaths) -> Process | None:
    """The task's conmon if it lives: one that has the task's id among its arguments."""
    pid = processes.read_pid(paths.conmon_pid)
    found = processes.find(pid)
    return found if found is not None and processes.has_argument(pid, paths.task_id) else None


def _absolute(program: str) -> str:
    """conmon does not look for the runtime on PATH."""
    return shutil.which(program) or program


def _environment(write_end: int, paths: TaskPaths) -> Mapping[str, str]:
    # Nothing of systemd's: a container must not be taken for the agent.
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "_OCI_SYNCPIPE": str(write_end), SCRATCH: str(paths.bundle)}


async def _read_line(loop: asyncio.AbstractEventLoop, fd: int) -> bytes:
    """Up to the newline, or to the end."""
    os.set_blocking(fd, False)
    done: asyncio.Future[bytes] = loop.create_future()
    content = bytearray()

    def on_readable() -> None:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return
        content.extend(piece)
        if (not piece or b"\n" in piece) and not done.done():
            done.set_result(bytes(content))

    loop.add_reader(fd, on_readable)
    try:
        return await done
    finally:
        loop.remove_reader(fd)
