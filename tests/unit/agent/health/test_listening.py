"""Does a task listen: by the kernel's own word, and when that is reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.unit.agent.fakes import until

from pyswarm_agent.health.listening import KernelSockets, PortWatch, Sockets, sockets_in
from pyswarm_agent.network import namespaces
from pyswarm_agent.tasks.listens import NOTHING, Listens

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace needs root")


@pytest.fixture
def kernel() -> Iterator[KernelSockets]:
    with contextlib.closing(KernelSockets()) as found:
        yield found


def listener(address: str, *, only_v6: bool = False) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if only_v6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    found.bind((address, 0))
    return found


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.5", "::", "::ffff:127.0.0.5"])
def test_a_socket_that_would_take_the_connection(kernel: KernelSockets, address: str) -> None:
    with listener(address) as server:
        port = server.getsockname()[1]
        assert not kernel.takes("127.0.0.5", port), "it is bound, but does not listen"
        server.listen()
        assert kernel.takes("127.0.0.5", port)
    assert not kernel.takes("127.0.0.5", port)


def test_sockets_that_would_not(kernel: KernelSockets) -> None:
    with listener("127.0.0.1") as other, listener("::", only_v6=True) as v6:
        for server in (other, v6):
            server.listen()
            assert not kernel.takes("127.0.0.5", server.getsockname()[1])
        with socket.create_connection(other.getsockname()) as client:
            # a connection's own end is no listener
            assert not kernel.takes("127.0.0.1", client.getsockname()[1])


def test_the_kernel_says_whether_it_can_tell(kernel: KernelSockets) -> None:
    kernel.check()


@pytest.fixture
def threads() -> Iterator[namespaces.Threads]:
    with contextlib.closing(namespaces.Threads(2)) as made:
        yield made


@needs_root
async def test_sockets_of_a_namespace(threads: namespaces.Threads) -> None:
    own = Path("/proc/self/ns/net")
    here = own.stat().st_ino
    with contextlib.closing(await sockets_in(own, threads)) as found, listener("127.0.0.1") as server:
        server.listen()
        assert found.takes("127.0.0.1", server.getsockname()[1])
    assert own.stat().st_ino == here
    with pytest.raises(OSError):
        await sockets_in(Path("/nowhere"), threads)


@dataclass
class Table:
    """Sockets as a test says; `open` counts what is not closed."""

    there: set[tuple[str, int]] = field(default_factory=set)
    open: int = 0
    looks: int = 0
    error: OSError | None = None
    alive: bool = True

    async def sockets(self, task_id: str) -> Sockets:
        if self.error is not None:
            raise self.error
        self.open += 1
        return self

    def takes(self, address: str, port: int) -> bool:
        self.looks += 1
        return (address, port) in self.there

    def close(self) -> None:
        self.open -= 1

    def is_alive(self) -> bool:
        return self.alive


class Watched:
    def __init__(self, table: Table, listens: Listens, seconds: float) -> None:
        self.reports: list[tuple[int, ...]] = []
        watch = PortWatch(table.sockets, time.time, lambda pid: table if pid == 7 else None)
        self.began = time.monotonic()
        self.work = watch.start("t1", 7, ["10.0.0.2", "10.1.0.2"], listens, time.time() + seconds, self.reports.append)

    async def reported(self) -> float:
        """Seconds until then."""
        await until(lambda: self.reports, what="a report")
        return time.monotonic() - self.began


async def test_it_is_reported_as_soon_as_all_listen_on_any_of_the_addresses() -> None:
    table = Table({("10.0.0.2", 80)})
    watched = Watched(table, Listens((80, 443), every=True), 4.0)
    await until(lambda: table.looks > 6)
    assert not watched.reports
    table.there.add(("10.1.0.2", 443))
    assert await watched.reported() < 2
    assert watched.reports == [()] and table.open == 0


async def test_when_the_time_is_over_what_is_missing_is_reported() -> None:
    table = Table({("10.0.0.2", 80)})
    watched = Watched(table, Listens((80, 443), every=True), 0.15)
    assert await watched.reported() > 0.1
    assert watched.reports == [(443,)] and table.open == 0


@pytest.mark.parametrize("listens", [NOTHING, Listens((80,))])
async def test_one_that_is_dead_when_the_time_is_over_is_not_reported(listens: Listens) -> None:
    table = Table(alive=False)
    watched = Watched(table, listens, 0.03)
    await until(lambda: table.open == 0 and watched.work.is_over)
    assert not watched.reports


async def test_without_ports_it_has_to_live() -> None:
    table = Table()
    watched = Watched(table, NOTHING, 0.05)
    assert await watched.reported() > 0.04
    assert watched.reports == [()] and not table.looks


async def test_where_it_cannot_be_seen_it_has_to_live_for_a_moment() -> None:
    watched = Watched(Table(error=PermissionError("no")), Listens((80,)), 5.0)
    assert await watched.reported() < 2
    assert watched.reports == [()]


async def test_a_clock_that_is_set_back_makes_nobody_wait() -> None:
    table = Table()
    watch = PortWatch(table.sockets, lambda: 1000.0, lambda pid: table)
    reports: list[tuple[int, ...]] = []
    watch.start("t1", 7, ["10.0.0.2"], NOTHING, 1000.1, reports.append)
    await until(lambda: reports, timeout=2)


async def test_stopped_it_reports_nothing_and_closes_what_it_opened() -> None:
    table = Table()
    watched = Watched(table, Listens((80,)), 4.0)
    await until(lambda: table.looks)
    watched.work.stop()
    await until(lambda: table.open == 0)
    table.there.add(("10.0.0.2", 80))
    await asyncio.sleep(0.02)
    assert not watched.reports
