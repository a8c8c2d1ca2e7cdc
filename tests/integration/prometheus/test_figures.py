"""Containers' and backends' figures are the kernel's, and every query of the dashboard has an answer."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.prometheus.conftest import APP, scraped
from tests.support.lab import LabUnderTest, eventually
from tests.support.prometheus import SHIPPED, Prometheus
from tests.support.scrape import parse

pytestmark = pytest.mark.lab

TOLERANCE = 0.001
# What cgroup files say, in the order of `READ`; the scrape lies between two looks at them.
READ = r"""
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  cd /sys/fs/cgroup/pyswarm/TASK
  sed -n 's/^usage_usec //p' cpu.stat; cat memory.current memory.max pids.current; sed -n 's/^anon //p' memory.stat
  echo 1000000
else
  cd /sys/fs/cgroup
  cat cpuacct/pyswarm/TASK/cpuacct.usage memory/pyswarm/TASK/memory.usage_in_bytes
  cat memory/pyswarm/TASK/memory.limit_in_bytes pids/pyswarm/TASK/pids.current
  sed -n 's/^total_rss //p' memory/pyswarm/TASK/memory.stat
  echo 1000000000
fi
nsenter --net=/run/pyswarm/netns/TASK sed -n 's/^ *eth0: *//p' /proc/net/dev
"""
NAMES = (
    "container_cpu_usage_seconds_total",
    "container_memory_usage_bytes",
    "container_spec_memory_limit_bytes",
    "container_threads",
    "container_memory_rss",
)


def kernel_says(lab: LabUnderTest, task: dict[str, Any]) -> dict[str, float]:
    *lines, unit, link = lab.on(task["node"], "sh", "-c", READ.replace("TASK", task["id"])).splitlines()
    found = {name: float(line) for name, line in zip(NAMES, lines, strict=True)}
    found["container_cpu_usage_seconds_total"] /= float(unit)
    fields = [float(field) for field in link.split()]
    found["container_network_receive_bytes_total"], found["container_network_receive_packets_total"] = fields[:2]
    found["container_network_transmit_bytes_total"], found["container_network_transmit_packets_total"] = fields[8:10]
    return found


@pytest.fixture(scope="module")
def counted(lab: LabUnderTest) -> Iterator[tuple[dict[str, Any], str]]:
    """A task that nobody but this test talks to, and its host's address. It has answered nine requests."""
    lab.cli(
        *("service", "deploy", "counted", APP, "--publish", "8081:80", "--limit-memory", "64M"),
        *("--stop-grace-period", "200ms"),
    )
    task = lab.running("counted")[0]
    for entry in lab.addresses * 3:
        with urllib.request.urlopen(f"http://{entry}:8081/", timeout=10) as answer:
            answer.read()
    yield task, lab.addresses[int(task["node"].removeprefix("host-")) - 1]
    lab.run("service", "rm", "counted")


def test_containers_figures_are_the_kernels(lab: LabUnderTest, counted: tuple[dict[str, Any], str]) -> None:
    task, address = counted
    before = kernel_says(lab, task)
    told = parse(scraped(address, 9378))
    after = kernel_says(lab, task)
    assert before["container_cpu_usage_seconds_total"] > 0
    assert before["container_network_transmit_bytes_total"] > 9 * 6000
    assert before["container_spec_memory_limit_bytes"] == 64 << 20
    for name, least in before.items():
        value = told.value(name, task=task["id"], service="counted", node=task["node"])
        low, high = sorted((least, after[name]))
        assert low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE), (name, least, value, after[name])


def test_backends_count_what_clients_did_and_go_with_their_service(
    lab: LabUnderTest, counted: tuple[dict[str, Any], str]
) -> None:
    task, address = counted
    told = parse(scraped(address, 9378))
    for name, labels in (("backend", {"task": task["id"]}), ("service", {"service": "counted"})):
        assert told.value(f"pyswarm_{name}_connections_total", **labels) == 9
        assert told.value(f"pyswarm_{name}_transmit_bytes_total", **labels) > 9 * 6000
        assert told.value(f"pyswarm_{name}_receive_bytes_total", **labels) > 9 * 40
    lab.cli("service", "rm", "counted")
    eventually(
        lambda: '"counted' not in scraped(address, 9378) + scraped(lab.addresses[0], 9377), "the end of its series", 20
    )


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(where, expression)."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            yield f"variable {variable['name']}", f'{series}{{{label}!=""}}'


def filled_in(expression: str) -> str:
    for name, value in (("$__rate_interval", "10s"), ("$service", ".*"), ("$node", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def test_every_query_of_the_dashboard_has_an_answer(lab: LabUnderTest, prom: Prometheus, app: str) -> None:
    dashboard = json.loads((SHIPPED / "grafana/pyswarm.json").read_text())
    wanted = dict.fromkeys(filled_in(expression) for _, expression in queries(dashboard))
    assert len(wanted) > 50
    of_events = {e for e in wanted if e.startswith("changes(")}  # they have an answer while a rollout is young
    for expression in of_events:
        prom.query(expression)
    # A rate needs two scrapes of a series.
    without = set(wanted) - of_events

    def unanswered() -> set[str]:
        without.difference_update([expression for expression in without if prom.query(expression)])
        return without

    try:
        eventually(lambda: not unanswered(), "an answer to each query", 10)
    except AssertionError:
        raise AssertionError(without) from None


def test_dashboards_panels_do_not_overlap() -> None:
    dashboard = json.loads((SHIPPED / "grafana/pyswarm.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
