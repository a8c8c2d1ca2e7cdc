"""Exclusive tasks: permits, what is done when they are over, and the fuse."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.fakes import FakeFuses, until
from tests.unit.agent.tasks.build import make_task
from tests.unit.agent.tasks.test_task_machine import Story

from pyswarm_agent import permit
from pyswarm_agent.exclusive import Exclusive
from pyswarm_agent.interfaces import ContainerExit, ContainerFailure
from pyswarm_agent.permit import KILL_AFTER, STOP_AFTER, Permit
from pyswarm_agent.runtime import fuses
from pyswarm_agent.runtime.processes import find
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks import successor
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher import nodes
from pyswarm_manager.leader import Leadership

DRIFT = 0.08  # how much faster or slower than another host's a clock may run


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def writer() -> pb.Task:
    task = make_task()
    task.spec.exclusive = True
    return task


# ---- the permit ----


def test_a_permit_counts_from_the_sending_and_an_older_answer_takes_nothing_back() -> None:
    given_permit = Permit().renewed(100.0)
    assert not Permit().is_valid(0.0)
    assert given_permit.is_valid(100 + STOP_AFTER - 0.01) and not given_permit.is_valid(100 + STOP_AFTER)
    assert given_permit.renewed(90.0) == given_permit
    assert given_permit.renewed(101.0).burns_at == 101 + KILL_AFTER
    assert not given_permit.is_valid(50.0), "of another boot"


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_argument(seed: int) -> None:
    """Two leaders and an agent, each with a clock of its own speed, messages that take as long as they like, and each
    of them frozen for as long as it likes: the fuse has burnt before a leader may replace. Real time is `now`."""
    rng = random.Random(seed)
    agent_speed, *leader_speeds = (rng.uniform(1 - DRIFT, 1 + DRIFT) for _ in range(3))
    ttl, margin = 5.0, 1.0
    # Leader 1's lease is confirmed until some time; leader 2 is elected after the store's own clock says so.
    confirmed_asked = rng.uniform(0, 20)
    first = Leadership(1, 0, certain_until=(confirmed_asked * leader_speeds[0]) + ttl - margin)
    elected = confirmed_asked + ttl + rng.uniform(0, 5)
    held = Permit()
    heard_by_second = elected  # as if: a new leader counts from its election
    for _ in range(30):
        sent = rng.uniform(0, 60)
        handled = sent + rng.choice([0.01, rng.uniform(0, 60)])  # the network, or a leader that was frozen
        to_second = handled > elected and rng.random() < 0.3
        if to_second:
            heard_by_second = max(heard_by_second, handled)
            certain = True
        else:
            certain = first.is_certain(handled * leader_speeds[0])
        if certain:  # the answer may take for ever: what counts is when the heartbeat was sent
            held = held.renewed(sent * agent_speed)
    if held.sent_at is None:
        return
    burns = held.burns_at / agent_speed
    replaces = heard_by_second + nodes.PERMIT_OVER / leader_speeds[1]
    assert burns < replaces, (burns, replaces)


# ---- the machine ----


def test_it_is_stopped_without_a_release_when_its_permit_is_over() -> None:
    story = Story(writer()).running()
    story.tell(ev.Lapsed())
    assert story.life.phase is Phase.STOPPING and "Signal" in story.kinds
    story.tell(ev.Lapsed())
    assert story.kinds == [], "once is enough"
    story.tell(ev.Exited(ContainerExit(0, False, story.now), (), None))
    assert story.life.phase is Phase.CLEANING
    assert ev.Clean(bury=True) in story.last, "clients were still being sent to it"
    assert story.state == pb.TASK_STATE_FAILED and "leader" in story.life.status.error


def test_its_end_is_told_only_when_nothing_of_it_is_left() -> None:
    story = Story(writer()).running()
    story.tell(ev.Exited(ContainerExit(3, False, story.now), (), None))
    assert story.state == pb.TASK_STATE_FAILED and "Report" not in story.kinds
    story.tell(ev.CleanFailed("it is stuck"))
    assert "Report" not in story.kinds
    story.ring(after=60).tell(ev.Cleaned())
    assert "Report" in story.kinds and story.life.phase is Phase.DONE


def test_a_host_without_managers_makes_no_successor_of_it() -> None:
    story = Story(writer()).running()
    story.tell(ev.Exited(ContainerExit(3, False, story.now), (), None)).tell(ev.Cleaned())
    lives = {story.life.id: story.life}
    assert not successor.plan(lives, {}, story.now - 100, story.now + 500).successors
    ready = writer()
    ready.desired_state, ready.start_after = pb.TASK_STATE_READY, 1.0
    assert not successor.plan({"t1": Story(ready).life}, {}, 0.0, 1000.0).start


# ---- the agent's part ----


class Bench:
    def __init__(self, **times: float) -> None:
        self.now = 1000.0
        self.looks = 0
        self.fuses = FakeFuses()
        self.lives: dict[str, Life] = {}
        self.fed: list[tuple[str, ev.Event]] = []
        self.exclusive = self.start(**times)

    def start(self, **times: float) -> Exclusive:
        return Exclusive(self.fuses, self._lives, lambda i, e: self.fed.append((i, e)), lambda: self.now, **times)

    def _lives(self) -> dict[str, Life]:
        self.looks += 1
        return self.lives


async def test_what_runs_is_stopped_when_the_permit_is_over_and_not_before() -> None:
    bench = Bench()
    bench.lives["t1"] = Story(writer()).running().life
    bench.exclusive.renewed(1000.0)
    await bench.exclusive.look()
    assert bench.fuses.armed == {"t1"}, "it had no fuse: it has one now"
    bench.now += STOP_AFTER - 0.1
    await bench.exclusive.look()
    assert bench.fed == []
    bench.now += 0.1
    await bench.exclusive.look()
    assert bench.fed == [("t1", ev.Lapsed())]


async def test_an_agent_that_was_restarted_knows_its_permit() -> None:
    bench = Bench()
    bench.exclusive.renewed(1000.0)
    bench.lives["t1"] = Story(writer()).running().life
    again = bench.start()
    await again.look()
    assert bench.fed == []
    bench.now += STOP_AFTER
    await again.look()
    assert bench.fed == [("t1", ev.Lapsed())]


async def test_a_permit_of_another_boot_keeps_no_new_one_away() -> None:
    bench = Bench()
    bench.fuses.written = Permit(1e9)
    again = bench.start()
    again.renewed(1000.0)
    await again.guard("t1")
    assert bench.fuses.armed == {"t1"} and bench.fuses.written == Permit(1000.0)


async def test_a_task_that_cannot_have_a_fuse_is_stopped() -> None:
    bench = Bench()
    bench.exclusive.renewed(1000.0)
    bench.lives["t1"] = Story(writer()).running().life
    bench.fuses.failures.append(ContainerFailure("no processes left", final=False))
    await bench.exclusive.look()
    assert bench.fed == [("t1", ev.Lapsed())]


async def test_a_host_without_such_tasks_looks_at_nothing() -> None:
    bench = Bench(look_every=0.001)
    watch = asyncio.create_task(bench.exclusive.run())

    async def looks(more: int) -> None:
        seen = bench.looks
        await until(lambda: bench.looks >= seen + more, timeout=0.05)

    other = Story(make_task()).running().life
    bench.lives["t0"] = other
    bench.exclusive.changed(other)
    with pytest.raises(TimeoutError):
        await looks(1)
    bench.lives["t1"] = Story(writer()).running().life
    bench.exclusive.changed(bench.lives["t1"])
    await until(lambda: ("t1", ev.Lapsed()) in bench.fed)
    del bench.lives["t1"]
    with pytest.raises(TimeoutError):  # once more, to see that it has gone
        await looks(2)
    watch.cancel()


async def test_none_starts_without_a_permit() -> None:
    bench = Bench(permit_within=0.05)
    with pytest.raises(ContainerFailure, match="no leader"):
        await bench.exclusive.guard("t1")
    assert not bench.fuses.armed
    bench.exclusive.renewed(1000.0)
    await bench.exclusive.guard("t1")
    assert bench.fuses.armed == {"t1"}


def test_heartbeats_are_more_frequent_only_where_it_matters() -> None:
    bench = Bench()
    assert bench.exclusive.period() > 5
    bench.lives["t1"] = Story(writer()).life
    assert bench.exclusive.period() == permit.PERIOD


# ---- the fuse itself ----


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def light(victim: subprocess.Popen[bytes], tmp_path: Path) -> Callable[[float], str]:
    def start(burns_in: float) -> str:
        (tmp_path / "permit").write_text(str(boot() + burns_in))
        started = find(victim.pid)
        assert started is not None
        command = [sys.executable, "-I", "-S", str(fuses.PROGRAM), str(victim.pid), str(started.started)]
        return subprocess.run(
            [*command, str(tmp_path / "permit"), str(tmp_path / "lock")], capture_output=True, text=True, timeout=30
        ).stdout

    return start


def burning(tmp_path: Path) -> int:
    """The pid of the fuse."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(tmp_path / "lock").encode() in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:
            continue
    return 0


async def test_a_fuse_kills_when_the_time_is_over(
    light: Callable[[float], str], victim: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    before = boot()
    assert light(1.0) == "armed\n"
    assert victim.wait(20) == -signal.SIGKILL
    assert boot() >= before + 1.0
    await until(lambda: not burning(tmp_path))


async def test_a_fuse_follows_the_permit_and_ends_with_its_container(
    light: Callable[[float], str], victim: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert light(5.0) == "armed\n"
    (tmp_path / "permit").write_text(str(boot() + 1000))
    assert light(1000) == "armed\n", "there is one already"
    victim.terminate()
    assert victim.wait(20) == -signal.SIGTERM
    await until(lambda: not burning(tmp_path))


def test_a_permit_that_is_over_arms_nothing_and_kills(
    light: Callable[[float], str], victim: subprocess.Popen[bytes]
) -> None:
    assert light(-1.0) == ""
    assert victim.wait(20) == -signal.SIGKILL


async def test_a_fuse_that_was_frozen_does_not_believe_what_was_written_meanwhile(
    light: Callable[[float], str], victim: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """As when a whole machine was suspended, and its agent was the first to wake up."""
    assert light(3.0) == "armed\n"
    over = boot() + 3.0
    os.kill(burning(tmp_path), signal.SIGSTOP)
    try:
        await until(lambda: boot() > over, timeout=30)
        (tmp_path / "permit").write_text(str(boot() + 1000))
    finally:
        os.kill(burning(tmp_path), signal.SIGCONT)
    assert victim.wait(20) == -signal.SIGKILL
