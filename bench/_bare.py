"""The floor for a start: conmon and the bare runtime on a bundle like the agent's own, and nothing else.

    python bench/_bare.py TASK      inside a host, with the id of a task that runs there; its bundle is the pattern

Each line of standard input is a count: so many containers are started, as many at once as the agent allows itself, and
one line of JSON is answered, {"seconds": until all of them ran, "each": [milliseconds]}. What was made is removed
before the answer; what a start needs (folder, config, mounted root file system) is made before the clock runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyswarm_agent.images.mounting import Mounter
from pyswarm_agent.runtime.host import find_programs
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_agent.tasks.tools import AT_ONCE

PARENT = "pyswarm-bare"
DATA, RUN = Path("/var/lib/pyswarm"), Path("/run/pyswarm")
Config = dict[str, Any]


def start(conmon: str, runtime: Sequence[str], task_id: str, bundle: Path) -> tuple[float, float]:
    """Milliseconds: (until it was created, from there until its process ran)."""
    program, *arguments = runtime
    read_end, write_end = os.pipe()
    command = [
        *(conmon, "--api-version", "1", "--cid", task_id, "--cuuid", task_id, "--name", task_id),
        *("--runtime", program, *(f"--runtime-arg={argument}" for argument in arguments), "--bundle", str(bundle)),
        *("--container-pidfile", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "conmon.pid")),
        *("--exit-dir", str(bundle / "exit"), "--persist-dir", str(bundle / "persist"), "--full-attach"),
        *("--log-path", f"k8s-file:{bundle / 'log'}", "--log-level", "error", "--no-sync-log"),
    ]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(write_end,),
        env={"PATH": os.environ["PATH"], "_OCI_SYNCPIPE": str(write_end)},
        cwd=bundle,
    )
    os.close(write_end)
    answer = json.loads(os.read(read_end, 65536) or b"{}")
    os.close(read_end)
    process.wait()
    created = time.perf_counter()
    if answer.get("data", -1) <= 0:
        raise SystemExit(f"the bare start failed: {answer}")
    subprocess.run([*runtime, "start", task_id], check=True)
    return (created - began) * 1e3, (time.perf_counter() - created) * 1e3


def bundle_of(config: Config, folder: Path, rootfs: Path, cgroup: str) -> None:
    """A bundle in `folder` as `config` is, with its own root file system and cgroup."""
    for name in ("exit", "persist"):
        (folder / name).mkdir(parents=True)
    changed = json.loads(json.dumps(config))
    changed["root"]["path"] = str(rootfs)
    changed["linux"]["cgroupsPath"] = cgroup
    (folder / "config.json").write_text(json.dumps(changed))


@dataclass(frozen=True)
class Floor:
    task_id: str
    folder: Path
    mounter: Mounter

    @property
    def runtime(self) -> Sequence[str]:
        return (find_programs(RuntimeSettings()).runtime, f"--root={self.folder / 'state'}")

    def layers(self) -> str:
        """Of the pattern's root file system."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, point, kind, options, *_ = line.split()
            if kind == "overlay" and f"/{self.task_id}/" in point:
                return next(o.removeprefix("lowerdir=") for o in options.split(",") if o.startswith("lowerdir="))
        raise SystemExit(f"no root file system of {self.task_id} is mounted here")

    async def run(self, names: Sequence[str]) -> tuple[float, list[float]]:
        config = json.loads((RUN / "containers" / self.task_id / "config.json").read_text())
        lower, conmon, runtime = self.layers(), find_programs(RuntimeSettings()).conmon, self.runtime
        for name in names:
            rootfs = await self.mounter.mount(name, "bare", DATA / "images" / "overlay", lower)
            bundle_of(config, self.folder / name, rootfs, f"/{PARENT}/{name}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            began = time.perf_counter()
            each = list(pool.map(lambda name: start(conmon, runtime, name, self.folder / name), names))
            seconds = time.perf_counter() - began
        for name in names:
            subprocess.run([*runtime, "delete", "--force", name], check=True)
            await self.mounter.unmount(name)
            shutil.rmtree(self.folder / name)
        return seconds, [sum(one) for one in each]


@contextlib.contextmanager
def floor(task_id: str) -> Iterator[Floor]:
    folder, rootfs = RUN / PARENT, DATA / PARENT
    mounter = Mounter(rootfs)
    try:
        yield Floor(task_id, folder, mounter)
    finally:
        mounter.close()
        for path in (folder, rootfs):
            shutil.rmtree(path, ignore_errors=True)
        for group in Path("/sys/fs/cgroup").glob(f"**/{PARENT}"):
            with contextlib.suppress(OSError):
                group.rmdir()


async def main() -> None:
    numbers = itertools.count()
    with floor(sys.argv[1]) as bare:
        for line in sys.stdin:
            seconds, each = await bare.run([f"bare{next(numbers)}" for _ in range(int(line))])
            print(json.dumps({"seconds": seconds, "each": each, "median": statistics.median(each)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
