"""A runtime for tests, with a root file system of busybox and a network namespace; and is anything left of it?"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.images import BUSYBOX, COMMANDS

from pyswarm_agent.images.mounting import Mounter
from pyswarm_agent.interfaces import ContainerExit, ContainerRequest, ImageConfig
from pyswarm_agent.logs.reader import LogReader
from pyswarm_agent.runtime.conmon import ConmonRuntime
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core.v1 import spec_pb2 as spec

NEEDS = "needs root and the packages crun, runc, conmon, catatonit and busybox-static"
_NUMBERS = itertools.count()


def missing(runtime: str) -> bool:
    return any(shutil.which(name) is None for name in (runtime, "conmon", "busybox", "catatonit"))


def make_base(folder: Path) -> None:
    assert BUSYBOX is not None
    for name in ("bin", "etc", "tmp", "root", "var"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, folder / "bin" / "busybox")
    for command in COMMANDS:
        (folder / "bin" / command).symlink_to("busybox")
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n")
    (folder / "etc" / "group").write_text("root:x:0:\nweb:x:1001:\nextra:x:2000:web\n")


class Containers:
    def __init__(self, folder: Path, runtime: str) -> None:
        self.folder = folder
        self.name = f"pyswarm-test-{os.getpid()}-{next(_NUMBERS)}"
        self.settings = RuntimeSettings(folder / "data", folder / "run", cgroup_parent=self.name, runtime=runtime)
        self.layers = folder / "layers"
        self.base = self.layers / "base"
        make_base(self.base)
        self.mounter = Mounter(folder / "rootfs")
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)
        self.netns = Path("/run/netns") / self.name
        self.runtime = ConmonRuntime(self.settings)
        self.logs = LogReader(self.runtime)

    def restarted(self) -> ConmonRuntime:
        """As an agent's new process would find things."""
        self.runtime = ConmonRuntime(self.settings)
        self.logs = LogReader(self.runtime)
        return self.runtime

    async def request(
        self,
        task_id: str,
        *command: str,
        image: ImageConfig | None = None,
        resources: spec.Resources | None = None,
        log: spec.LogPolicy | None = None,
        labels: Mapping[str, str] | None = None,
        **container: Any,
    ) -> ContainerRequest:
        """With a mounted root file system; `container` are fields of ContainerSpec."""
        return ContainerRequest(
            task_id=task_id,
            service_name="web",
            container=spec.ContainerSpec(args=command, **container),
            resources=resources or spec.Resources(),
            log=log or spec.LogPolicy(max_size=1 << 20, max_file=3),
            image=image or ImageConfig(),
            rootfs=await self.mounter.mount(task_id, "base", self.layers, "base"),
            netns=self.netns,
            hostname="testhost",
            nameserver="169.254.1.1",
            search=("corp.example",),
            hosts=(("10.128.0.5", "testhost"),),
            labels=labels or {},
        )

    async def start(self, task_id: str, *command: str, **options: Any) -> int:
        pid = await self.runtime.create(await self.request(task_id, *command, **options))
        await self.runtime.start(task_id)
        return pid

    async def run(self, task_id: str, *command: str, **options: Any) -> tuple[ContainerExit, str]:
        """To its end; with all that it printed."""
        await self.start(task_id, *command, **options)
        async with asyncio.timeout(60):
            end = await self.runtime.wait(task_id)
        return end, await self.output(task_id)

    async def sh(self, script: str, **options: Any) -> str:
        """A script that succeeds; what it printed."""
        task_id = f"sh{next(_NUMBERS)}"
        end, output = await self.run(task_id, "sh", "-c", script, **options)
        assert end.code == 0, f"exit code {end.code}: {output}"
        return output

    async def output(self, task_id: str) -> str:
        lines = [line.line.decode() async for batch in self.logs.read(task_id) for line in batch]
        return "\n".join(lines)

    async def output_has(self, task_id: str, text: str) -> None:
        await eventually(lambda: self.output(task_id), lambda output: text in output)

    async def remove(self, task_id: str) -> None:
        await self.runtime.delete(task_id)
        await self.mounter.unmount(task_id)
        await self.runtime.forget(task_id)

    async def close(self) -> None:
        known = {
            path.name for name in ("data/tasks", "run/containers", "rootfs") for path in listed(self.folder / name)
        }
        for task_id in known:
            await self.remove(task_id)
        self.mounter.close()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def left(self) -> Sequence[str]:
        """What is still there of it, on the whole machine."""
        found = [
            str(path) for name in ("data/tasks", "run/containers", "run/runtime") for path in listed(self.folder / name)
        ]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line]
        points = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"))
        found += [str(point / self.name) for point in points if (point / self.name).exists()]
        return [*found, *processes_with(str(self.folder))]


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in command and int(path.name) != os.getpid():
            found.append(f"{path.name}: {command}")
    return found


def listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


async def eventually(ask: Any, enough: Any = bool, seconds: float = 20.0) -> Any:
    """Asks (a function, async or not) until the answer is enough."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if enough(answer):
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s; last answer: {answer!r}"
        await asyncio.sleep(0.02)
