"""An update that fails: the old version serves throughout, the spec is as before, the exit code and the output tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.lab import REGISTRY, LabUnderTest

pytestmark = pytest.mark.lab

WEB = ("--replicas", "3", "--publish", "8080:80", "--update-monitor", "1s")
BAD = {
    "an image that does not exist": (f"{REGISTRY}/web:nowhere", "nowhere"),
    "a container that crashes": (f"{REGISTRY}/crash:1", "cannot read the configuration"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_image_is_rolled_back(lab: LabUnderTest, report: Path, what: str) -> None:
    image, words = BAD[what]
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *WEB)
    before = lab.service("web")["spec"]
    with lab.load(8080, report) as seen:
        done = lab.run("service", "update", "web", "--image", image)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert lab.service("web")["spec"] == before
    assert lab.service("web")["rollout"]["state"] == "rolled_back"
    assert seen["failed"] == 0, seen
    assert {t["image"] for t in lab.running("web")} == {f"{REGISTRY}/web:v1"}


def test_a_probe_that_never_passes_is_rolled_back(lab: LabUnderTest, report: Path) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *WEB)
    before = lab.service("web")["spec"]
    with lab.load(8080, report) as seen:
        done = lab.run(
            *("service", "update", "web", "--health-tcp", "81", "--health-interval", "200ms", "--health-retries", "3")
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "probe" in done.stdout + done.stderr
    assert lab.service("web")["spec"] == before
    assert seen["failed"] == 0, seen


def test_a_deadline_that_passes_exits_4(lab: LabUnderTest, report: Path) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *WEB)
    before = lab.service("web")["spec"]
    with lab.load(8080, report) as seen:
        # a start period as long as this keeps the probe undecided, so that only the deadline can end it
        done = lab.run(
            *("service", "update", "web", "--health-tcp", "81", "--health-start-period", "10m"),
            *("--update-deadline", "3s"),
        )
    assert done.returncode == 4, done.stdout + done.stderr
    assert seen["failed"] == 0, seen
    after = lab.service("web")["spec"]
    assert after == before


def test_a_first_deploy_that_fails_pauses(lab: LabUnderTest) -> None:
    done = lab.run("service", "deploy", "web", f"{REGISTRY}/crash:1", "--replicas", "2")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot read the configuration" in done.stdout + done.stderr


def test_failure_action_pause_exits_3(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *WEB, "--update-failure-action", "pause")
    done = lab.run("service", "update", "web", "--image", f"{REGISTRY}/crash:1")
    assert done.returncode == 3, done.stdout + done.stderr
    assert lab.service("web")["rollout"]["state"] == "paused"
    lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:v2")
    assert {t["image"] for t in lab.running("web")} == {f"{REGISTRY}/web:v2"}


def test_a_rollback_by_hand(lab: LabUnderTest, report: Path) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *WEB)
    before = lab.service("web")["spec"]
    lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:v2")
    with lab.load(8080, report) as seen:
        lab.cli("service", "rollback", "web")
    assert lab.service("web")["spec"] == before
    assert {t["image"] for t in lab.running("web")} == {f"{REGISTRY}/web:v1"}
    assert seen["failed"] == 0, seen
