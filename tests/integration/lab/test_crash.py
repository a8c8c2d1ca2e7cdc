"""Agents and managers killed at random points of rollouts: each completes, no task starts twice, nothing leaks."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.lab import PYSWARM, REGISTRY, SOAK, LabUnderTest, eventually

pytestmark = pytest.mark.lab

KILLS = 50 if SOAK else 4


def test_kills_at_random_points_of_rollouts(lab: LabUnderTest, report: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    flags = ("--replicas", "4", "--publish", "8080:80", "--update-monitor", "500ms", "--drain-timeout", "1s")
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *flags)
    with lab.load(8080, report) as seen:
        for number in range(KILLS):
            version = ("v2", "v1")[number % 2]
            update = subprocess.Popen(
                [*PYSWARM, "service", "update", "web", "--image", f"{REGISTRY}/web:{version}"],
                env=lab.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            time.sleep(rng.uniform(0, 4))  # the point of the rollout is the thing drawn, not a wait for something
            host, daemon = rng.choice([("host-1", "manager"), ("host-1", "agent"), ("host-2", "agent")])
            lab.lab("kill", host, daemon)
            lab.lab("start", host, daemon)
            output, _ = update.communicate(timeout=120)
            if update.returncode != 0:
                # The command may lose its manager, also before it was heard; a rollout that began may not be lost.
                if not lab.service("web")["spec"]["task"]["container"]["image"].endswith(version):
                    lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:{version}")
                eventually(
                    lambda: lab.service("web")["rollout"]["state"] == "completed",
                    f"the end of rollout {number} ({host} {daemon} killed)\n{output}",
                )
            eventually(
                lambda version=version: [t["image"] for t in lab.running("web")] == [f"{REGISTRY}/web:{version}"] * 4,
                f"four tasks of {version} after kill {number}",
            )
    assert seen["failed"] == 0, seen
    eventually(
        lambda: sum(int(lab.on(f"host-{n}", "sh", "-c", "pgrep -c -f '[a]pp.py' || true")) for n in (1, 2, 3)) == 4,
        "four containers and no more",
    )
    for service in lab.json("service", "ps", "web"):
        assert service["restarts"] == 0, service


def test_containers_survive_their_agents_death_untouched(lab: LabUnderTest, report: Path) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "3", "--publish", "8080:80")
    before = {t["id"]: t["started_at"] for t in lab.running("web")}
    pids = {n: lab.on(f"host-{n}", "pgrep", "-f", "[a]pp.py") for n in (1, 2, 3)}
    with lab.load(8080, report) as seen:
        for n in (1, 2, 3):
            lab.lab("kill", f"host-{n}", "agent")
            lab.lab("start", f"host-{n}", "agent")
        eventually(lambda: all(n["status"] == "ready" for n in lab.json("node", "ls")), "all nodes ready")
    assert seen["failed"] == 0, seen
    assert {t["id"]: t["started_at"] for t in lab.running("web")} == before
    assert {n: lab.on(f"host-{n}", "pgrep", "-f", "[a]pp.py") for n in (1, 2, 3)} == pids


def test_traffic_flows_while_manager_and_etcd_are_away(lab: LabUnderTest, report: Path) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "3", "--publish", "8080:80")
    before = {t["id"]: t["started_at"] for t in lab.running("web")}
    with lab.load(8080, report, "--rate", "5") as seen:
        lab.lab("kill", "host-1", "manager")
        lab.lab("kill", "host-1", "etcd")
        lab.lab("start", "host-1", "etcd")
        lab.lab("start", "host-1", "manager")
        eventually(lambda: all(n["status"] == "ready" for n in lab.json("node", "ls")), "all nodes ready")
    assert seen["failed"] == 0, seen
    assert {t["id"]: t["started_at"] for t in lab.running("web")} == before
