"""Fuses: one process beside each exclusive container, and the file that tells all of them how long they have."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.permit import KILL_AFTER, Permit
from pyswarm_agent.runtime import processes
from pyswarm_agent.runtime.monitor import Identity
from pyswarm_agent.runtime.paths import Folders
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core import files

PROGRAM = Path(__file__).with_name("fuse.py")
ARM_WITHIN = 10.0  # seconds


class Fuses:
    """The permit's file is in the run directory: it outlives the agent, and not the host."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._folders = Folders(settings)
        self._file = settings.run_dir / "permit"

    def permit(self) -> Permit:
        """What an earlier agent was given."""
        try:
            return Permit(float(self._file.read_text()) - KILL_AFTER)
        except (OSError, ValueError):
            return Permit()

    def extend(self, permit: Permit) -> None:
        """Raises OSError."""
        files.put(self._file, f"{permit.burns_at:.3f}")

    def is_armed(self, task_id: str) -> bool:
        return processes.holds_lock(self._folders.of(task_id).fuse)

    async def arm(self, task_id: str) -> None:
        """Returns when the container cannot outlive the permit. ContainerFailure; and then it is dead, or not there."""
        paths = self._folders.of(task_id)
        identity = Identity.load(paths.identity)
        if identity is None:
            raise ContainerFailure("the container is gone: it cannot be started", final=False)
        container = identity.container
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(PROGRAM)),
                *(str(container.pid), str(container.started), str(self._file), str(paths.fuse)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise ContainerFailure(f"its fuse cannot be started: {error.strerror}", final=False) from error
        try:
            async with asyncio.timeout(ARM_WITHIN):
                assert process.stdout is not None
                said = await process.stdout.readline()
                await process.wait()
        except TimeoutError:
            process.kill()
            said = b""
        if said.strip() != b"armed":
            raise ContainerFailure("its permit was over, or its fuse could not be armed", final=False)
