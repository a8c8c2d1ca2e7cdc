"""What the store costs: writes one by one, side by side and batched; how late a watch and the cache are.

    .venv/bin/python bench/store.py [--json]

Starts an etcd of its own in a temporary folder. Figures depend on the disk below it: etcd syncs each write.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.etcd import EtcdProcess

from pyswarm_core import kinds, tls
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.store.base import Compare, Delete, Field, Op, Put, Store
from pyswarm_core.store.cache import WatchCache
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager import plan
from pyswarm_manager.writer import Writer

BATCH = 100
VALUE = b"x" * 200
Figures = dict[str, float]


async def rate(work: Callable[[int], Awaitable[object]], *, seconds: float = 2.0, side_by_side: int = 1) -> float:
    """Calls per second."""
    until = time.perf_counter() + seconds
    done = 0

    async def one(lane: int) -> None:
        nonlocal done
        number = lane
        while time.perf_counter() < until:
            await work(number)
            number += side_by_side
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(one(lane) for lane in range(side_by_side)))
    return done / (time.perf_counter() - began)


async def writes(store: Store) -> Figures:
    async def put(number: int) -> None:
        await store.txn([], [Put(f"/bench/put/{number % 1000}", VALUE)])

    async def put_many(number: int) -> None:
        ops: list[Op] = [Put(f"/bench/put/{(number * BATCH + i) % 1000}", VALUE) for i in range(BATCH)]
        await store.txn([], ops)

    async def create_many(number: int) -> None:
        keys = [f"/bench/guarded/{number}/{i}" for i in range(BATCH)]
        await store.txn([Compare(k, Field.MOD, 0) for k in keys], [Put(k, VALUE) for k in keys])

    async def get(number: int) -> None:
        await store.get(f"/bench/put/{number % 1000}")

    return {
        "puts/s, one at a time": await rate(put),
        "puts/s, 64 side by side": await rate(put, side_by_side=64),
        "puts/s, 100 in one transaction": BATCH * await rate(put_many),
        "puts/s, 100 in one transaction, 4 side by side": BATCH * await rate(put_many, side_by_side=4),
        "guarded creates/s, 100 in one transaction": BATCH * await rate(create_many),
        "gets/s, one at a time": await rate(get),
        "gets/s, 64 side by side": await rate(get, side_by_side=64),
    }


def percentiles(name: str, samples: list[float]) -> Figures:
    cuts = statistics.quantiles(samples, n=100)
    return {f"{name}, ms p50": cuts[49] * 1000, f"{name}, ms p99": cuts[98] * 1000}


async def latency(writer: Store, reader: Store, count: int = 300) -> Figures:
    """From before the write to the watcher, and to a reader of the cache, over another connection."""
    told: asyncio.Queue[float] = asyncio.Queue()
    ready = asyncio.Event()

    async def follow(start: int) -> None:
        watch = reader.watch("/bench/late/", from_revision=start, on_connected=lambda on: ready.set() if on else None)
        async with aclosing(watch):
            async for batch in watch:
                for _ in batch.events:
                    told.put_nowait(time.perf_counter())

    following = asyncio.create_task(follow((await writer.list("/bench/late/")).revision + 1))
    cache = WatchCache(reader)
    running = asyncio.create_task(cache.run())
    try:
        await ready.wait()
        await cache.wait_for(1)
        by_watch, by_cache, by_write = [], [], []
        for number in range(count):
            began = time.perf_counter()
            await writer.txn([], [Put("/bench/late/x", str(number).encode())])
            by_write.append(time.perf_counter() - began)
            by_watch.append(await told.get() - began)
            task = pb.Task(id="bench", slot=number + 1)
            began = time.perf_counter()
            result = await writer.txn([], [Put(kinds.key_of(task), kinds.encode(task))])
            await cache.wait_for(result.revision)
            by_cache.append(time.perf_counter() - began)
        await writer.txn([], [Delete(kinds.key("task", "bench"))])
    finally:
        following.cancel()
        running.cancel()
        await asyncio.gather(following, running, return_exceptions=True)
    return {
        **percentiles("write answered", by_write),
        **percentiles("write until watched", by_watch),
        **percentiles("write until in the cache", by_cache),
    }


async def plans(store: Store, tasks: int = 5000) -> Figures:
    """A large plan through the fenced writer, then a cache that loads it."""
    fence = Compare(kinds.LEADER_KEY, Field.CREATE, (await store.txn([], [Put(kinds.LEADER_KEY, b"")])).revision)
    spec = pb.Task(service_name="web", spec={"container": {"image": "registry.lab:5000/web:v1", "env": ["A=1"] * 10}})
    steps = []
    for number in range(tasks):
        task = plan.changed(spec)
        task.id = f"bench-{number:06}"
        steps.append((plan.Put(task),))
    began = time.perf_counter()
    await Writer(store, fence).apply(plan.Plan(tuple(steps)))
    written = time.perf_counter() - began
    cache = WatchCache(store)
    began = time.perf_counter()
    cache.load(await store.list(kinds.PREFIX))
    loaded = time.perf_counter() - began
    assert len(cache.objects(pb.Task)) == tasks
    return {f"{tasks} tasks written by plan, s": written, f"{tasks} tasks loaded into a cache, s": loaded}


async def measure(folder: Path) -> dict[str, Figures]:
    authority = tls.Authority.create()
    server = authority.issue(common_name="etcd", role="etcd", addresses=["127.0.0.1"])
    client = authority.issue(common_name="bench", role="manager")
    with EtcdProcess(folder, identity=server) as etcd:
        stores = [EtcdStore.connect([etcd.endpoint], client) for _ in range(2)]
        try:
            found = {
                "etcd, TLS": {
                    **await writes(stores[0]),
                    **await latency(stores[0], stores[1]),
                    **await plans(stores[0]),
                }
            }
        finally:
            for store in stores:
                await store.close()
    memory = MemoryStore()
    found["memory"] = {**await writes(memory), **await latency(memory, memory), **await plans(memory)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as folder:
        found = asyncio.run(measure(Path(folder)))
    if arguments.json:
        print(json.dumps(found))
        return
    names = list(next(iter(found.values())))
    print(f"{'':50}" + "".join(f"{subject:>14}" for subject in found))
    for name in names:
        print(f"{name:50}" + "".join(f"{figures[name]:>14,.{_digits(figures[name])}f}" for figures in found.values()))


def _digits(figure: float) -> int:
    return 2 if figure < 100 else 0


if __name__ == "__main__":
    main()
