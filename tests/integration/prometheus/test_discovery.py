"""A real Prometheus on a host of the cluster finds everything by service discovery alone."""

from __future__ import annotations

import time

import pytest
from tests.integration.prometheus.conftest import scraped
from tests.support.lab import LabUnderTest, eventually
from tests.support.prometheus import Prometheus, promtool
from tests.support.scrape import parse

pytestmark = pytest.mark.lab


def test_all_nodes_are_found(lab: LabUnderTest, prom: Prometheus) -> None:
    wanted = {f"{address}:9378" for address in lab.addresses} | {f"{lab.addresses[0]}:9377"}
    eventually(lambda: prom.up("pyswarm") == wanted, "all agents and the manager scraped", 15)
    found = [t["labels"] for t in prom.targets() if t["scrapePool"] == "pyswarm"]
    roles = {(labels["component"], labels["node"]) for labels in found}
    assert roles == {("manager", "host-1"), *(("agent", f"host-{n}") for n in (1, 2, 3))}


def test_a_new_service_is_found_within_a_refresh(lab: LabUnderTest, prom: Prometheus, app: str) -> None:
    deployed = time.monotonic()
    tasks = {f"{t['addresses'][0]}:80": t for t in lab.running(app)}
    eventually(lambda: prom.up("pyswarm-tasks") == tasks.keys(), "all tasks scraped", 15)
    took = time.monotonic() - deployed
    # A refresh is 2 s, Prometheus takes up what was found every 5 s, and a scrape comes within 1 s; the rest is for a
    # busy machine.
    assert took < 12, took
    figures = prom.query("app_visitors")
    assert [f["value"][1] for f in figures] == ["42"] * 3
    seen = {(f["metric"]["service"], f["metric"]["task"], f["metric"]["node"], f["metric"]["slot"]) for f in figures}
    assert seen == {(app, t["id"], t["node"], str(t["slot"])) for t in tasks.values()}
    print(f"targets of a new service up after {took:.1f} s")


def test_tasks_that_go_are_dropped(lab: LabUnderTest, prom: Prometheus, app: str) -> None:
    lab.cli("service", "scale", f"{app}=2")
    eventually(lambda: len(prom.up("pyswarm-tasks")) == 2, "a target less", 15)
    lab.cli("service", "scale", f"{app}=3")


def test_promtool_finds_nothing_wrong_with_what_is_told(lab: LabUnderTest, app: str) -> None:
    for address, port in ((lab.addresses[0], 9377), *((a, 9378) for a in lab.addresses)):
        text = scraped(address, port)
        parse(text)
        assert promtool("check", "metrics", stdin=text).strip() == ""
