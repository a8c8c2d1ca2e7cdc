"""Commands inside a running container, for probes."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.runtime import bundle, invoke, processes
from pyswarm_agent.runtime.oci import OciRuntime
from pyswarm_agent.runtime.paths import TaskPaths

OUTPUT = 4096  # bytes kept


async def execute(oci: OciRuntime, paths: TaskPaths, argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """With the container's own user, environment, folder, capabilities and seccomp filter. TimeoutError: killed."""
    process = bundle.read_process(paths)
    if process is None:
        raise ContainerFailure("the container is gone", final=False)
    described = {**process, "args": list(argv), "terminal": False}
    described.pop("oomScoreAdj", None)
    fd = os.memfd_create("process", os.MFD_CLOEXEC)
    try:
        os.write(fd, msgspec.json.encode(described))
        try:
            handle, pid_name = tempfile.mkstemp(prefix="exec-", suffix=".pid", dir=paths.bundle)
        except FileNotFoundError:
            raise ContainerFailure("the container is gone", final=False) from None
        os.close(handle)
        pid_file = Path(pid_name)

        async def kill_inside() -> None:
            """The command is no child of ours, nor of the runtime's process that is about to be killed."""
            pid = processes.read_pid(pid_file)
            if pid:
                _kill_with_descendants(pid)

        try:
            done = await invoke.run(
                [*oci.prefix, "exec", "--process", f"/proc/self/fd/{fd}", "--pid-file", pid_name, paths.task_id],
                timeout=timeout,
                pass_fds=(fd,),
                keep=OUTPUT,
                env=oci.environment,
                before_kill=kill_inside,
            )
        finally:
            pid_file.unlink(missing_ok=True)
    finally:
        os.close(fd)
    return done.code if done.code >= 0 else 128 - done.code, done.output


def _kill_with_descendants(pid: int) -> None:
    """It and all that it started; the children first, as without it they would get a new parent."""
    for child in processes.children(pid):
        _kill_with_descendants(child)
    with processes.opened(pid) as fd:
        if fd is not None:
            processes.send(fd, signal.SIGKILL)
