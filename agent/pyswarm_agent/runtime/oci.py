"""The OCI runtime's command line: create (by way of conmon), start, state, delete, exec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pyswarm_agent.runtime import failures, invoke
from pyswarm_agent.runtime.cgroups import Layout

TIMEOUT = 60.0  # seconds; a runtime that takes longer hangs

# crun refuses cgroup v1 with a v2 hierarchy beside it. In a mount namespace of its own, with that hierarchy covered, it
# works. It costs 2.7 ms a call, and only on such hosts; done per call, and not once for agent and conmon, because a
# lasting namespace would keep other containers' root file systems mounted after they are gone. Mounts are slaves, so
# that none of this comes back to the host: mounts with propagation "shared" do not work on such hosts.
_COVER = 'mount -t tmpfs -o size=4k none /sys/fs/cgroup/unified && exec "$0" "$@"'
_COVERED = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", _COVER)


# crun protects itself from its containers by a copy of itself, for which it needs a temporary file; killed at the wrong
# moment it leaves that behind. This says where to put it, instead of /tmp.
SCRATCH = "_LIBCONTAINER_STATEDIR"


class State(msgspec.Struct):
    """What `state` prints, as far as it is needed."""

    status: str
    pid: int = 0


class OciRuntime:
    def __init__(self, program: str, root: Path, layout: Layout) -> None:
        needs_cover = layout is Layout.HYBRID and "crun" in Path(os.path.realpath(program)).name
        self.name = Path(program).name
        self.root = root
        self.scratch = root.parent / "scratch"
        self.environment = {**os.environ, SCRATCH: str(self.scratch)}
        self.prefix: Sequence[str] = (*(_COVERED if needs_cover else ()), program, f"--root={root}")

    async def start(self, task_id: str) -> None:
        """ContainerFailure when it cannot be, or was already."""
        done = await self._run("start", task_id)
        if done.code:
            raise failures.translate(done.output, "started")

    async def state(self, task_id: str) -> State | None:
        """None: the runtime knows no such container."""
        done = await self._run("state", task_id)
        if done.code:
            return None
        try:
            return msgspec.json.decode(done.output, type=State)
        except msgspec.DecodeError:
            return None

    async def delete(self, task_id: str) -> None:
        """Of a container whose processes are gone. ContainerFailure when its state cannot be removed."""
        if not (self.root / task_id).exists():
            return
        done = await self._run("delete", task_id)
        if done.code and (self.root / task_id).exists():
            done = await self._run("delete", "--force", task_id)
        if done.code and (self.root / task_id).exists():
            raise failures.translate(done.output, "deleted")

    async def _run(self, *arguments: str) -> invoke.Done:
        return await invoke.run([*self.prefix, *arguments], timeout=TIMEOUT, env=self.environment)
