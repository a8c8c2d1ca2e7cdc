"""Hosts whose clocks are wrong: wall clocks by an hour, and steady ones that run too fast or too slow.

Debian's `faketime` stands between a daemon, with the processes that it starts, and libc's clocks. Etcd does not ask
libc, so its clock stays right."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_cli.lab import daemons
from pyswarm_cli.lab import host as lab_hosts
from pyswarm_core.membership.daemons import command
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha.faults import WORKER, pids_of
from tests.integration.ha.ha_lab import PORT, HaLab, clean, new_running
from tests.integration.ha.test_exclusive import apart, deploy, host_of, running
from tests.integration.ha.witness import Witness
from tests.support.lab import SOAK, eventually

FAKETIME = shutil.which("faketime")
pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(400),
    pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: `make setup` does it"),
]

REPLICAS = 6


@contextlib.contextmanager
def clock(lab: HaLab, host: str, daemon: str, how: str) -> Iterator[None]:
    """`how`: as in `faketime -f`."""
    lab.kill(host, daemon)
    try:
        where = lab.layout.host(host)
        words = ["faketime", "-m", "-f", how, *shlex.split(command(daemon))]
        lab_hosts.start_daemon(lab.layout, where, daemon, words)
        # `faketime` stays, as its parent: it is the daemon that must be found, and ended, by what is remembered here.
        wrapper = lab.pid(host, daemon)
        eventually(lambda: children(wrapper), f"{daemon} of {host} under faketime")
        lab_hosts.remember(where.folder / f"{daemon}.pid", children(wrapper)[0])
        daemons.wait(lab.layout, where, daemon)
        yield
    finally:
        daemons.kill(lab.layout, lab.layout.host(host), daemon)
        lab.start(host, daemon)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def all_ready(lab: HaLab) -> None:
    eventually(lambda: all(n["status"] == "ready" for n in lab.json("node", "ls")), "all nodes ready")


@contextlib.contextmanager
def an_agent(lab: HaLab, witness: Witness, how: str) -> Iterator[None]:
    with clock(lab, WORKER, "agent", how):
        yield


@contextlib.contextmanager
def the_leader(lab: HaLab, witness: Witness, how: str) -> Iterator[None]:
    name = witness.leader
    others = [h.name for h in lab.layout.managers if h.name != name]
    with clock(lab, name, "manager", how):
        for other in others:
            lab.kill(other, "manager")
        try:
            witness.wait(lambda w: w.leader == name, f"the election of {name}")
        finally:
            lab.start(others[0], "manager")
            lab.start(others[1], "manager")
        yield


WHO = {"an agent": an_agent, "the leader": the_leader}
CASES = [("an agent", "+3600s"), ("an agent", "-3500s"), ("the leader", "+3600s"), ("the leader", "-3500s")]


@pytest.mark.parametrize(("who", "how"), CASES if SOAK else CASES[1:3])
def test_a_rollout_with_a_wrong_wall_clock(lab: HaLab, witness: Witness, report: Path, who: str, how: str) -> None:
    lab.deploy_web(REPLICAS)
    with WHO[who](lab, witness, how):
        all_ready(lab)
        before = {task.id for task in witness.tasks_of("web")}
        with lab.load(PORT, report) as seen, lab.updating() as update:
            lab.web_is_updated(update)
        clean(seen)
        made = [task for task in witness.tasks_of("web") if task.id not in before]
        assert len(made) == REPLICAS and not any(task.restarts for task in made), witness.story()
        print(f"{who} {how}: {seen['sent']} requests, {seen['failed']} failed")
    all_ready(lab)
    lab.settle(witness)


def test_a_leader_whose_clock_is_right_goes_on_after_one_that_was_ahead(
    lab: HaLab, witness: Witness, report: Path
) -> None:
    """It waits for nothing for the hour by which what is stored is ahead."""
    lab.deploy_web(REPLICAS)
    with the_leader(lab, witness, "+3600s"):
        all_ready(lab)
        before = [task.id for task in witness.tasks_of("web")]
        with lab.load(PORT, report) as seen, lab.updating() as update:
            witness.wait(lambda w: new_running(w, before) >= 1, "a task of the new version")
            lab.kill(witness.leader, "manager")
            lab.web_is_updated(update)
        clean(seen)
    all_ready(lab)
    lab.settle(witness)


@pytest.mark.parametrize("speed", ["x1.05", "x0.95"] if SOAK else ["x0.95"])
def test_one_writer_whatever_the_speed_of_its_hosts_clock(lab: HaLab, witness: Witness, speed: str) -> None:
    with clock(lab, "host-4", "agent", f"+0 {speed}"), clock(lab, "host-5", "agent", f"+0 {speed}"):
        all_ready(lab)
        volume = deploy(lab)
        old = running(witness)
        assert pids_of(old.id)
        with lab.cut(host_of(lab, old)):
            witness.wait(
                lambda w: any(t.id != old.id and t.status.state == pb.TASK_STATE_RUNNING for t in w.tasks_of("db")),
                "another task",
            )
            assert pids_of(old.id) == [], "nobody has told it anything, and it must be gone"
            gaps = apart(lab, volume)
        print(f"{speed}: {gaps} s between the last write and the first of the next one")
    all_ready(lab)
    lab.settle(witness)
    assert apart(lab, volume)
