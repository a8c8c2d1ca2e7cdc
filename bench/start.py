"""How long a container's start takes here, against the same bundle by conmon and the bare runtime.

    python bench/start.py [--rounds 30] [--parallel 20]

Needs root. The two ways take turns, each start on an otherwise idle machine; medians are compared. Ours is what the
agent does for a task whose image is present: mount its root file system, create, start. Bare is: run conmon on the same
config.json and a mounted root file system, wait for its word, run the runtime's `start`. Then many at once, both ways.
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
from collections.abc import Coroutine, Sequence
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
    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        self.bundles = run / "bare"
        self.settings = RuntimeSettings(folder / "data", run, cgroup_parent=PARENT)
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
        bundle = await self.bare_bundle(task_id, config)
        self.bare_start(task_id, bundle, times)
        await self.bare_clean(task_id)

    async def bare_bundle(self, task_id: str, config: dict[str, object]) -> Path:
        rootfs = await self.mounter.mount(task_id, "bench", self.layers, "base")
        bundle = self.bundles / task_id
        for name in ("exit", "persist"):
            (bundle / name).mkdir(parents=True)
        changed = json.loads(json.dumps(config))
        changed["root"]["path"] = str(rootfs)
        changed["linux"]["cgroupsPath"] = f"/{PARENT}/{task_id}"
        (bundle / "config.json").write_text(json.dumps(changed))
        return bundle

    def bare_start(self, task_id: str, bundle: Path, times: Times) -> None:
        root = f"--root={self.bundles.parent / 'bare-state'}"
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

    async def bare_clean(self, task_id: str) -> None:
        root = f"--root={self.bundles.parent / 'bare-state'}"
        delete = [self.programs.runtime, root, "delete", "--force", task_id]
        await asyncio.to_thread(subprocess.run, delete, check=True)
        await self.mounter.unmount(task_id)

    async def parallel(self, count: int, config: dict[str, object], number: int) -> tuple[float, float]:
        """Seconds for `count` at once: ours, bare. As many are under way together as the agent lets be."""
        slots = asyncio.Semaphore(max(4, 2 * (os.cpu_count() or 1)))

        async def limited(work: Coroutine[None, None, None]) -> None:
            async with slots:
                await work

        names = [f"many{number}-{each}" for each in range(count)]
        began = time.perf_counter()
        await asyncio.gather(*(limited(self.ours(name, Times())) for name in names))
        ours = time.perf_counter() - began
        await asyncio.gather(*(limited(self.clean(name)) for name in names))
        bundles = [await self.bare_bundle(name, config) for name in names]
        began = time.perf_counter()
        await asyncio.gather(
            *(
                limited(asyncio.to_thread(self.bare_start, name, bundle, Times()))
                for name, bundle in zip(names, bundles, strict=True)
            )
        )
        bare = time.perf_counter() - began
        await asyncio.gather(*(limited(self.bare_clean(name)) for name in names))
        shutil.rmtree(self.bundles)
        return ours, bare


@dataclass
class Found:
    ours: Times = field(default_factory=Times)
    bare: Times = field(default_factory=Times)
    many: list[tuple[float, float]] = field(default_factory=list)  # seconds

    @property
    def full(self) -> float:
        return self.ours.total(self.ours.mount, self.ours.create, self.ours.start)

    @property
    def floor(self) -> float:
        return self.bare.total(self.bare.create, self.bare.start)

    def many_medians(self) -> tuple[float, float]:
        ours, bare = zip(*self.many, strict=True)
        return statistics.median(ours), statistics.median(bare)


async def measure(folder: Path, run: Path, rounds: int, parallel: int) -> Found:
    bench = Bench(folder, run)
    found = Found()
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    keeper = "keeper"  # so that the parents of the cgroups are there for both
    try:
        await bench.ours(keeper, Times())
        config = json.loads((bench.settings.run_dir / "containers" / keeper / "config.json").read_text())
        for number in range(-2, rounds):  # two to warm up
            kept = (found.ours, found.bare) if number >= 0 else (Times(), Times())
            await bench.ours(f"ours{number}", kept[0])
            await bench.clean(f"ours{number}")
            await bench.bare(f"bare{number}", config, kept[1])
        shutil.rmtree(bench.bundles)
        found.many += [await bench.parallel(parallel, config, number) for number in range(5)]
    finally:
        await bench.clean(keeper)
        bench.mounter.close()
        subprocess.run(["ip", "netns", "delete", NETNS], check=True)
    return found


def report(found: Found, parallel: int) -> Sequence[str]:
    ours, bare = found.ours, found.bare
    rows = [
        ("start, medians in ms", "mount", "create", "start", "total"),
        (
            "pyswarm",
            *(f"{statistics.median(part):.1f}" for part in (ours.mount, ours.create, ours.start)),
            f"{found.full:.1f}",
        ),
        (
            "conmon + bare runtime",
            "-",
            *(f"{statistics.median(part):.1f}" for part in (bare.create, bare.start)),
            f"{found.floor:.1f}",
        ),
    ]
    many_ours, many_bare = found.many_medians()
    return [
        *(f"{row[0]:24}" + "".join(f"{cell:>8}" for cell in row[1:]) for row in rows),
        f"ratio {found.full / found.floor:.2f} over {len(ours.create)} rounds (aim: at most 1.3)",
        f"{parallel} at once: pyswarm {many_ours:.2f} s, bare {many_bare:.2f} s, ratio {many_ours / many_bare:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--parallel", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench/start.py needs root")
    cover_unified()
    with (
        tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as folder,
        # A tmpfs, as /run is.
        tempfile.TemporaryDirectory(prefix="pyswarm-bench-", dir="/dev/shm") as run,
    ):
        found = asyncio.run(measure(Path(folder), Path(run), arguments.rounds, arguments.parallel))
    if arguments.json:
        many_ours, many_bare = found.many_medians()
        figures = {
            "start_ms": round(found.full, 1),
            "bare_ms": round(found.floor, 1),
            "ratio": round(found.full / found.floor, 2),
            "parallel": arguments.parallel,
            "parallel_ratio": round(many_ours / many_bare, 2),
        }
        print(json.dumps(figures))
    else:
        print("\n".join(report(found, arguments.parallel)))


if __name__ == "__main__":
    main()
