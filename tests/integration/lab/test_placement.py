"""Tasks that fit nowhere say why; drain, constraints and resources move what they must and nothing else."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tests.support.lab import PYSWARM, REGISTRY, LabUnderTest, eventually

pytestmark = pytest.mark.lab

BOX = f"{REGISTRY}/busybox:1"


def refused(lab: LabUnderTest, *flags: str) -> str:
    lab.cli("service", "deploy", "huge", BOX, "--detach", *flags)
    tasks = eventually(
        lambda: [t for t in lab.tasks("huge") if "no suitable node" in t["error"]], "a task that says why it waits"
    )
    return str(tasks[0]["error"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--reserve-memory", "900g"), "memory"),
        (("--reserve-cpu", "500"), "CPU"),
        (("--constraint", "node.labels.zone==moon"), "zone"),
    ],
)
def test_what_fits_nowhere_says_why(lab: LabUnderTest, flags: tuple[str, ...], words: str) -> None:
    reason = refused(lab, *flags)
    assert words in reason
    assert "3" in reason


def test_the_deploy_itself_says_why(lab: LabUnderTest) -> None:
    done = lab.run(
        *("service", "deploy", "huge", BOX, "--reserve-memory", "900g", "--update-deadline", "2s"),
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "memory" in done.stdout + done.stderr


def test_a_constraint_moves_only_what_no_longer_fits(lab: LabUnderTest) -> None:
    for host in ("host-1", "host-2"):
        lab.cli("node", "update", "--label-add", "zone=a", host)
    try:
        lab.cli("service", "deploy", "box", BOX, "--replicas", "4", "--constraint", "node.labels.zone==a")
        assert {t["node"] for t in lab.running("box")} == {"host-1", "host-2"}
        stay = {t["id"] for t in lab.running("box") if t["node"] == "host-1"}
        lab.cli("node", "update", "--label-rm", "zone", "host-2")
        eventually(lambda: {t["node"] for t in lab.running("box")} == {"host-1"}, "all tasks on host-1")
        assert stay <= {t["id"] for t in lab.running("box")}
    finally:
        for host in ("host-1", "host-2"):
            lab.run("node", "update", "--label-rm", "zone", host)


def test_spread_is_even(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "box", BOX, "--replicas", "6")
    nodes = [t["node"] for t in lab.running("box")]
    assert sorted(nodes.count(n) for n in set(nodes)) == [2, 2, 2]


def test_ctrl_c_leaves_the_work_going(lab: LabUnderTest) -> None:
    process = subprocess.Popen(
        [*PYSWARM, "service", "deploy", "huge", BOX, "--reserve-memory", "900g"],
        env=lab.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: any(s["name"] == "huge" for s in lab.json("service", "ls")), "the service")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "pyswarm" in said
    assert any(s["name"] == "huge" for s in lab.json("service", "ls"))
