"""Rolling updates, scaling and draining under load lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.lab import REGISTRY, SOAK, LabUnderTest, eventually

pytestmark = pytest.mark.lab

ROUNDS = 10 if SOAK else 1
PROBE = ("--health-http", "80/healthz", "--health-interval", "1s", "--health-start-period", "30s")
# A connection that is kept alive and never idle stays until the drain timeout: that is what a batch lasts.
WEB = (*PROBE, "--drain-timeout", "8s", "--publish", "8080:80")


def deploy(lab: LabUnderTest, version: str, replicas: int, *flags: str) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:{version}", "--replicas", str(replicas), *WEB, *flags)


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_rolling_update_of_ten_under_load(lab: LabUnderTest, report: Path, order: str) -> None:
    flags = ("--update-parallelism", "2", "--update-order", order, "--update-monitor", "1s")
    deploy(lab, "v1", 10, *flags)
    for number in range(ROUNDS):
        version = ("v2", "v1")[number % 2]
        with lab.load(8080, report, "--stream", "/stream?seconds=6") as seen:
            lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:{version}")
        assert seen["failed"] == 0, seen
        assert seen["stream"]["answers"] == {"120 lines": 1}
        assert seen["sent"] > 200
        assert {t["image"] for t in lab.running("web")} == {f"{REGISTRY}/web:{version}"}
        receipt = lab.service("web")["rollout"]["receipt"]
        assert receipt["replaced"] == 10
        assert int(receipt["late_connections"]) == 0
        assert receipt["failures"] == 0


def test_one_replica_replaced_stop_first_costs_a_pause_not_an_error(lab: LabUnderTest, report: Path) -> None:
    deploy(lab, "v1", 1, "--update-order", "stop-first", "--update-monitor", "1s", "--drain-timeout", "1s")
    with lab.load(8080, report) as seen:
        lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:v2")
    assert seen["failed"] == 0, seen


def test_scaling_up_and_down_under_load(lab: LabUnderTest, report: Path) -> None:
    deploy(lab, "v1", 3)
    with lab.load(8080, report) as seen:
        for replicas in (9, 2, 6):
            lab.cli("service", "scale", f"web={replicas}")
            assert len(lab.running("web")) == replicas
    assert seen["failed"] == 0, seen


def test_draining_a_host_under_load(lab: LabUnderTest, report: Path) -> None:
    deploy(lab, "v1", 6)
    before = {t["id"]: t["node"] for t in lab.running("web")}
    try:
        with lab.load(8080, report) as seen:
            lab.cli("node", "update", "--availability", "drain", "host-2")
            eventually(
                lambda: all(t["node"] != "host-2" for t in lab.running("web")) and len(lab.running("web")) == 6,
                "the tasks of host-2 elsewhere",
            )
        assert seen["failed"] == 0, seen
        after = {t["id"]: t["node"] for t in lab.running("web")}
        stayed = {i for i, node in before.items() if node != "host-2"}
        assert stayed <= set(after), "a task that was not on the drained host was moved"
    finally:
        lab.cli("node", "update", "--availability", "active", "host-2")
