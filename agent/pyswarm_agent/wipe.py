"""Takes everything of the agent's off this host, when it leaves its cluster: containers, network, mounts, files. The
agent must not run any more. Volumes stay: they are the user's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.images.store import ImageStore
from pyswarm_agent.network.node import NodeNetwork
from pyswarm_agent.runtime import kernel
from pyswarm_agent.runtime.conmon import ConmonRuntime
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger

log = get_logger("agent.wipe")

OURS = ("agent", "image-pulls", "image-uses", "images", "rootfs", "tasks")  # in the data folder
KEPT = "volumes"


async def wipe(data_dir: Path, run_dir: Path) -> Sequence[str]:
    """Returns what could not be removed, one clause each: everything else is gone. May be repeated."""
    left: list[str] = []
    runtime = ConmonRuntime(RuntimeSettings(data_dir=data_dir, run_dir=run_dir))
    images = ImageStore(ImageSettings(data_dir=data_dir, run_dir=run_dir))
    network = NodeNetwork(run_dir)
    try:
        for state in await runtime.states():
            for part in (runtime.delete, images.unmount, runtime.forget):
                try:
                    await part(state.task_id)
                except (PyswarmError, OSError) as error:
                    left.append(f"task {state.task_id}: {error}")
        try:
            await network.purge()
        except (PyswarmError, OSError) as error:
            left.append(f"network: {error}")
    finally:
        await network.stop()
        await images.close()
    for point in _mounts((data_dir, run_dir)):
        try:
            kernel.unmount(str(point))
        except OSError as error:
            left.append(f"mount {point}: {error.strerror}")
    if not left:
        _remove_files(data_dir, run_dir)
    return left


def _mounts(folders: Sequence[Path]) -> list[Path]:
    """Below them, the innermost first."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [p for p in reversed(points) if any(p != f and p.is_relative_to(f) for f in folders)]


def _remove_files(data_dir: Path, run_dir: Path) -> None:
    shutil.rmtree(run_dir, ignore_errors=True)
    for name in OURS:
        shutil.rmtree(data_dir / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (data_dir / KEPT).rmdir()  # nothing in it
