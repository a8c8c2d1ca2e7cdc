"""Containers and hosts that go without notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.lab import REGISTRY, SOAK, LabUnderTest, eventually

pytestmark = pytest.mark.lab

KILLS = 30 if SOAK else 3


def test_a_killed_container_is_replaced_and_clients_barely_notice(lab: LabUnderTest, report: Path) -> None:
    flags = ("--replicas", "4", "--publish", "8080:80", "--restart-delay", "100ms")  # doubles with each of a slot's
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", *flags)
    with lab.load(8080, report, "--new", "12", "--keep-alive", "0") as seen:
        for number in range(KILLS):
            victim = lab.running("web")[number % 4]
            lab.kill_container(victim)
            eventually(
                lambda victim=victim: (
                    len(lab.running("web")) == 4 and victim["id"] not in {t["id"] for t in lab.running("web")}
                ),
                "the replacement of a killed container",
            )
    # What was being answered by the container that died is lost; nothing else is.
    assert seen["failed"] <= KILLS * 12, seen
    assert not any("Refused" in reason for reason in seen["new"]["reasons"]), seen
    print("gap after a kill, ms:", seen["new"]["ms"])


def test_a_host_without_power_is_replaced_and_its_return_is_clean(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "6")
    lost = {t["id"] for t in lab.running("web") if t["node"] == "host-3"}
    assert lost
    lab.lab("kill", "host-3")
    try:
        eventually(
            lambda: next(n for n in lab.json("node", "ls") if n["hostname"] == "host-3")["status"] == "down",
            "host-3 down",
        )
        eventually(
            lambda: len([t for t in lab.running("web") if t["node"] != "host-3"]) == 6, "six tasks on other hosts"
        )
    finally:
        lab.lab("start", "host-3")
    eventually(
        lambda: next(n for n in lab.json("node", "ls") if n["hostname"] == "host-3")["status"] == "ready",
        "host-3 ready again",
    )
    eventually(lambda: not (lost & {t["id"] for t in lab.running("web")}), "the old tasks ended")
    assert "app.py" not in lab.on("host-3", "sh", "-c", "ps -ef | grep '[a]pp.py' || true")


def test_a_host_cut_off_stops_what_is_no_longer_its_own_when_it_is_back(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "6")
    cut = "host-3"
    old = {t["id"] for t in lab.running("web") if t["node"] == cut}
    lab.lab("cut", cut)
    try:
        eventually(lambda: len([t for t in lab.running("web") if t["node"] != cut]) == 6, "six tasks on other hosts")
        # it cannot know that it is cut off, so it serves on
        count = int(lab.on(cut, "sh", "-c", "pgrep -c -f '[a]pp.py' || true"))
        assert count == len(old)
    finally:
        lab.lab("heal")
    eventually(
        lambda: lab.on(cut, "sh", "-c", "pgrep -c -f '[a]pp.py' || true").strip() == "0",
        "the end of the containers that moved",
    )
    assert len(lab.running("web")) == 6
