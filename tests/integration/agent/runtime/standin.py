"""An agent's process for tests: makes containers, says so, and waits to be killed.

python standin.py FOLDER PARENT NETNS RUNTIME ROOTFS TASK…    (TASK:created is not started)
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pyswarm_agent.interfaces import ContainerRequest, ImageConfig
from pyswarm_agent.runtime.conmon import ConmonRuntime
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core.v1 import spec_pb2 as spec


async def main(folder: Path, parent: str, netns: str, program: str, rootfs: Path, tasks: list[str]) -> None:
    runtime = ConmonRuntime(RuntimeSettings(folder / "data", folder / "run", cgroup_parent=parent, runtime=program))
    for task in tasks:
        task_id, _, only = task.partition(":")
        request = ContainerRequest(
            task_id=task_id,
            service_name="web",
            container=spec.ContainerSpec(
                args=["sh", "-c", "trap 'exit 9' TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done"]
            ),
            resources=spec.Resources(limit_memory=32 << 20),
            log=spec.LogPolicy(max_size=1 << 20, max_file=3),
            image=ImageConfig(),
            rootfs=rootfs / task_id / "merged",
            netns=Path(netns),
            hostname="standin",
            nameserver="",
            search=(),
            hosts=(),
            labels={},
        )
        pid = await runtime.create(request)
        if not only:
            await runtime.start(task_id)
        print(task_id, pid, flush=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    folder, parent, netns, program, rootfs, *tasks = sys.argv[1:]
    asyncio.run(main(Path(folder), parent, netns, program, Path(rootfs), tasks))
