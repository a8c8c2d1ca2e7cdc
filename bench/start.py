"""How long a container's start takes here, against the same bundle by conmon and the bare runtime.

    python bench/start.py [--rounds 30]

Needs root. The two ways take turns, each start on an otherwise idle machine; medians are compared. Ours is what the
agent does for a task whose image is present: mount its root file system, create, start. Bare is: run conmon on the same
config.json and a mounted root file system, wait for its word, run the runtime's `start`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm_agent.images.mounting import Mounter
from pyswarm_agent.interfaces import ContainerRequest, ImageConfig
from pyswarm_agent.runtime.cgroups import Cgroups, Layout
from pyswarm_agent.runtime.conmon import ConmonRuntime
from pyswarm_agent.runtime.host import find_programs
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_core.v1 import spec_pb2 as spec

PARENT = f"pyswarm-bench-{os.getpid()}"
NETNS = f"pyswarm-bench-{os.getpid()}"
COVERED = "PYSWARM_BENCH_COVERED"


def cover_unified() -> None:
    """Where cgroup v1 has a v2 hierarchy beside it, crun needs that covered. The agent then does so for each call; here
    both ways start covered, as they are on other hosts."""
    if Cgroups.detect(PARENT).layout is not Layout.HYBRID or os.environ.get(COVERED):
        return
    script = 'mount -t tmpfs none /sys/fs/cgroup/unified && exec "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, COVERED: "1"})


@dataclass
class Times:
    """Milliseconds."""

    mount: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)

    def total(self, *parts: list[float]) -> float:
        return statistics.median(sum(each) for each in zip(*parts, strict=True))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = RuntimeSettings(folder / "data", folder / "run", cgroup_parent=PARENT)
        self.runtime = ConmonRuntime(self.settings)
        self.programs = find_programs(self.settings)
        self.mounter = Mounter(folder / "rootfs")
        self.layers = folder / "layers"
        (self.layers / "base" / "bin").mkdir(parents=True)
        busybox = shutil.which("busybox")
        if busybox is None:
            raise SystemExit("bench/start.py needs a static busybox: install busybox-static")
        shutil.copy(busybox, self.layers / "base" / "bin" / "busybox")

    def request(self, task_id: str, rootfs: Path) -> ContainerRequest:
        return ContainerRequest(
            task_id=task_id,
            service_name="bench",
            container=spec.ContainerSpec(args=["/bin/busybox", "sleep", "1000"]),
            resources=spec.Resources(limit_memory=64 << 20, limit_nano_cpus=500_000_000, limit_pids=100),
            log=spec.LogPolicy(max_size=10_000_000, max_file=3),
            image=ImageConfig(),
            rootfs=rootfs,
            netns=Path("/run/netns") / NETNS,
            hostname="bench",
            nameserver="169.254.1.1",
            search=(),
            hosts=(("10.128.0.2", "bench"),),
            labels={},
        )

    async def ours(self, task_id: str, times: Times) -> None:
        began = time.perf_counter()
        rootfs = await self.mounter.mount(task_id, "bench", self.layers, "base")
        mounted = time.perf_counter()
        await self.runtime.create(self.request(task_id, rootfs))
        created = time.perf_counter()
        await self.runtime.start(task_id)
        started = time.perf_counter()
        times.mount.append((mounted - began) * 1e3)
        times.create.append((created - mounted) * 1e3)
        times.start.append((started - created) * 1e3)

    async def clean(self, task_id: str) -> None:
        await self.runtime.delete(task_id)
        await self.mounter.unmount(task_id)
        await self.runtime.forget(task_id)

    async def bare(self, task_id: str, config: dict[str, object], times: Times) -> None:
        rootfs = await self.mounter.mount(task_id, "bench", self.layers, "base")
        bundle = self.folder / "bare" / task_id
        for name in ("exit", "persist"):
            (bundle / name).mkdir(parents=True)
        changed = json.loads(json.dumps(config))
        changed["root"]["path"] = str(rootfs)
        changed["linux"]["cgroupsPath"] = f"/{PARENT}/{task_id}"
        (bundle / "config.json").write_text(json.dumps(changed))
        root = f"--root={self.folder / 'bare-state'}"
        read_end, write_end = os.pipe()
        command = [
            *(self.programs.conmon, "--api-version", "1", "--cid", task_id, "--cuuid", task_id, "--name", task_id),
            *("--runtime", self.programs.runtime, f"--runtime-arg={root}", "--bundle", str(bundle)),
            *("--container-pidfile", str(bundle / "pid"), "--conmon-pidfile", str(bundle / "conmon.pid")),
            *("--exit-dir", str(bundle / "exit"), "--persist-dir", str(bundle / "persist"), "--full-attach"),
            *("--log-path", f"k8s-file:{bundle / 'log'}", "--log-level", "error", "--no-sync-log"),
        ]
        began = time.perf_counter()
        conmon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write_end,),
            env={"PATH": os.environ["PATH"], "_OCI_SYNCPIPE": str(write_end)},
        )
        os.close(write_end)
        answer = json.loads(os.read(read_end, 65536) or b"{}")
        os.close(read_end)
        conmon.wait()
        created = time.perf_counter()
        if answer.get("data", -1) <= 0:
            raise SystemExit(f"the bare start failed: {answer}")
        subprocess.run([self.programs.runtime, root, "start", task_id], check=True)
        started = time.perf_counter()
        times.create.append((created - began) * 1e3)
        times.start.append((started - created) * 1e3)
        subprocess.run([self.programs.runtime, root, "delete", "--force", task_id], check=True)
        await self.mounter.unmount(task_id)


async def measure(folder: Path, rounds: int) -> tuple[Times, Times]:
    bench = Bench(folder)
    ours, bare = Times(), Times()
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    keeper = "keeper"  # so that the parents of the cgroups are there for both
    try:
        await bench.ours(keeper, Times())
        config = json.loads((bench.settings.run_dir / "containers" / keeper / "config.json").read_text())
        for number in range(-2, rounds):  # two to warm up
            kept = (ours, bare) if number >= 0 else (Times(), Times())
            await bench.ours(f"ours{number}", kept[0])
            await bench.clean(f"ours{number}")
            await bench.bare(f"bare{number}", config, kept[1])
    finally:
        await bench.clean(keeper)
        bench.mounter.close()
        subprocess.run(["ip", "netns", "delete", NETNS], check=True)
    return ours, bare


def report(ours: Times, bare: Times) -> Sequence[str]:
    full = ours.total(ours.mount, ours.create, ours.start)
    floor = bare.total(bare.create, bare.start)
    rows = [
        ("start, medians in ms", "mount", "create", "start", "total"),
        (
            "pyswarm",
            *(f"{statistics.median(part):.1f}" for part in (ours.mount, ours.create, ours.start)),
            f"{full:.1f}",
        ),
        (
            "conmon + bare runtime",
            "-",
            *(f"{statistics.median(part):.1f}" for part in (bare.create, bare.start)),
            f"{floor:.1f}",
        ),
    ]
    table = [f"{row[0]:24}" + "".join(f"{cell:>8}" for cell in row[1:]) for row in rows]
    return [*table, f"ratio {full / floor:.2f} over {len(ours.create)} rounds (aim: at most 1.3)"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench/start.py needs root")
    cover_unified()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as folder:
        ours, bare = asyncio.run(measure(Path(folder), arguments.rounds))
    if arguments.json:
        full, floor = ours.total(ours.mount, ours.create, ours.start), bare.total(bare.create, bare.start)
        print(json.dumps({"start_ms": round(full, 1), "bare_ms": round(floor, 1), "ratio": round(full / floor, 2)}))
    else:
        print("\n".join(report(ours, bare)))


if __name__ == "__main__":
    main()
