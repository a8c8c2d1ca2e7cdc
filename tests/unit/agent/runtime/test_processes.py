from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from pyswarm_agent.runtime import invoke, processes
from pyswarm_agent.runtime.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


async def test_ended_returns_at_the_end(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.find(sleeper.pid)
    assert found is not None and found.is_alive()
    with found.opened() as fd:
        assert fd is not None
        waiting = [asyncio.create_task(processes.ended(fd)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        processes.send(fd, 9)
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
        assert not found.is_alive() and found.is_zombie()
        assert os.WTERMSIG(found.zombie_status() or 0) == 9


def test_another_process_with_the_same_number_is_no_match(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.find(sleeper.pid)
    assert found is not None
    stranger = Process(found.pid, found.started - 1)
    assert not stranger.is_alive() and not stranger.is_zombie()
    with stranger.opened() as fd:
        assert fd is None


def test_what_is_gone() -> None:
    child = subprocess.Popen(["true"])
    found = processes.find(child.pid)
    child.wait()
    assert found is not None and not found.is_alive() and found.zombie_status() is None
    with found.opened() as fd:
        assert fd is None
    assert processes.find(0) is None


def test_arguments(sleeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 5
    while not processes.has_argument(sleeper.pid, "1000"):  # the kernel shows them a moment after exec
        assert time.monotonic() < deadline
    assert not processes.has_argument(sleeper.pid, "100")
    assert not processes.has_argument(0, "1000")


async def test_run_keeps_the_end_of_the_output() -> None:
    done = await invoke.run(["sh", "-c", "yes | head -c 100000; echo end; exit 3"], timeout=10, keep=100)
    assert done.code == 3 and len(done.output) == 100 and done.output.endswith("end\n")


async def test_run_does_not_wait_for_what_the_program_left_behind() -> None:
    async with asyncio.timeout(5):
        done = await invoke.run(["sh", "-c", "sleep 7 & echo $!"], timeout=10)
    os.kill(int(done.output), 9)


async def test_run_kills_at_its_timeout_and_when_cancelled() -> None:
    before: list[str] = []

    async def before_kill() -> None:
        before.append("asked")

    with pytest.raises(TimeoutError):
        await invoke.run(["sleep", "1000"], timeout=0.05, before_kill=before_kill)
    assert before == ["asked"]
    running = asyncio.create_task(invoke.run(["sleep", "1000"], timeout=100, before_kill=before_kill))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert before == ["asked", "asked"]


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OSError):
        await invoke.run(["/no/such/program"], timeout=1)
    open_fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError):
        await invoke.run(["/no/such/program"], timeout=1)
    assert len(os.listdir("/proc/self/fd")) == open_fds  # noqa: PTH208


def test_children_of_one_that_lives_and_of_one_that_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in processes.children(os.getpid())
    sleeper.kill()
    sleeper.wait()
    assert processes.children(sleeper.pid) == []
