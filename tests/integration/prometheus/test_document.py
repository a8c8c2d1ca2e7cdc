"""docs/metrics.md is true: every metric and alert is in it, nothing else is, and its commands work."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from tests.integration.prometheus.conftest import scraped
from tests.integration.prometheus.test_alerts import CHECKS
from tests.support.documented import DOCUMENT, Metric, documented
from tests.support.lab import LabUnderTest
from tests.support.prometheus import SHIPPED
from tests.support.scrape import Scrape, parse


@pytest.mark.lab
def test_every_metric_is_documented_and_every_documented_one_is_told(lab: LabUnderTest, app: str) -> None:
    told = {"manager": parse(scraped(lab.addresses[0], 9377)), "agent": parse(scraped(lab.addresses[0], 9378))}
    for component, scrape in told.items():
        written = {metric.name: metric for metric in documented() if component in metric.components}
        assert written.keys() == scrape.types.keys(), component
        for metric in written.values():
            agrees(metric, scrape)


def agrees(metric: Metric, scrape: Scrape) -> None:
    assert metric.kind == scrape.types[metric.name], metric.name
    assert metric.meaning == scrape.helps[metric.name], metric.name
    for labels in scrape.label_names(metric.name):
        assert labels == metric.labels, metric.name


def test_every_alert_is_documented() -> None:
    rules = yaml.safe_load((SHIPPED / "rules/pyswarm.yml").read_text())
    shipped = {
        (rule["alert"], rule["labels"]["severity"], rule.get("for", ""))
        for group in rules["groups"]
        for rule in group["rules"]
    }
    written = re.findall(r"^\| `(Pyswarm\w+)` \| (\w+) \| (\w*) \| .+ \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert set(written) == shipped and len(written) == len(shipped)


@pytest.mark.lab
def test_its_commands_work(lab: LabUnderTest, app: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        if words[0] == "pyswarm":
            lab.cli(*words[1:])
        elif words[0] == "curl":
            said = lab.on("host-1", *words)
            assert json.loads(said) if "/sd/" in command else parse(said).types, command
        else:
            assert command in CHECKS, "test_alerts runs these"
