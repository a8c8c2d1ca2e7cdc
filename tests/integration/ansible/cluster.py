"""A cluster of real hosts, and what tests ask of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.ansible.playbooks import Operator
from tests.support.lab import REGISTRY, eventually, under_load
from tests.support.machines.fleet import Fleet
from tests.support.machines.machine import Machine

PORT = 8080
MANAGERS, WORKERS = 3, 1  # and one more host, which comes later
SLOW = 180.0  # seconds; five hosts on two processors


class Cluster:
    """The hosts, with what tests ask of them."""

    def __init__(self, fleet: Fleet, operator: Operator) -> None:
        self.fleet = fleet
        self.operator = operator
        self.managers = fleet.machines[:MANAGERS]
        self.workers = fleet.machines[MANAGERS : MANAGERS + WORKERS]
        self.newcomer = fleet.machines[MANAGERS + WORKERS]
        self.arrange(self.managers, self.workers)

    def arrange(self, managers: list[Machine], workers: list[Machine]) -> None:
        """In the inventory."""
        self.managers, self.workers = managers, workers
        self.operator.write(managers, workers)

    @property
    def members(self) -> list[Machine]:
        return [*self.managers, *self.workers]

    def nodes(self) -> dict[str, dict[str, Any]]:
        """By hostname, as the first manager says."""
        return {node["hostname"]: node for node in self.managers[0].json("node ls")}

    def wait_ready(self) -> None:
        def ready() -> bool:
            try:
                nodes = self.nodes()
            except (AssertionError, json.JSONDecodeError):
                return False  # no manager answers at this moment
            managing = [n for n in nodes.values() if n["manager_status"] in ("leader", "reachable")]
            statuses = {name: node["status"] for name, node in nodes.items()}
            return statuses == {m.name: "ready" for m in self.members} and len(managing) == len(self.managers)

        eventually(ready, "all nodes are ready, and all managers reachable", SLOW)

    def running(self) -> list[dict[str, Any]]:
        tasks = self.managers[0].json("service ps web")
        return [t for t in tasks if t["state"] == "running" and t["desired_state"] == "running"]

    def deploy(self, replicas: int) -> None:
        self.managers[0].pyswarm(f"service deploy web {REGISTRY}/web:v1 --replicas {replicas} -p {PORT}:80 --quiet")

    def containers(self) -> dict[str, dict[str, int]]:
        """host → task → first process."""
        return {machine.name: machine.containers() for machine in self.members}

    def check_traffic(self) -> None:
        """Every host answers."""
        for machine in self.members:

            def answers(address: str = machine.address) -> bool:
                said = subprocess.run(
                    ["curl", "-sS", "--max-time", "5", f"http://{address}:{PORT}/"], capture_output=True, text=True
                )
                return "hello (v1) from" in said.stdout

            eventually(answers, f"an answer by way of {machine.name}", SLOW)

    @contextmanager
    def load(self, report: Path, on: Sequence[Machine] = ()) -> Iterator[dict[str, Any]]:
        """Clients of these hosts, or of all, while the block runs; the dictionary is filled with what they saw after
        it."""
        urls = [f"http://{machine.address}:{PORT}/" for machine in on or self.members]
        count = str(len(urls))
        with under_load(urls, report, "--new", count, "--keep-alive", count, "--rate", "5") as figures:
            yield figures
        print(f"requests: {figures['sent']} sent, {figures['failed']} failed, {figures['seconds']} s")


def check_load(figures: dict[str, Any], least: int) -> None:
    assert figures["sent"] >= least, figures
    assert figures["failed"] == 0, {kind: figures[kind] for kind in ("new", "keep_alive")}
