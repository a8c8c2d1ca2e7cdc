"""What a long run has done, kept in a file as it goes, so that the next one goes on where it ended."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.simulation.run import Outcome

# What an hour of a simulation that counts has at least.
NODES, SERVICES, FAULTS, ACTIONS = 5, 5, 60, 60
SHORT = 0.4  # hours


@dataclass(frozen=True, slots=True)
class Record:
    """Of one seed. `commit`: the code that ran; `finding` "": nothing was violated. `seconds`: of a processor."""

    seed: int
    hours: float
    faults: int
    actions: int
    nodes: int
    services: int
    settled_after: float
    seconds: float
    trace: str
    finding: str
    commit: str

    @classmethod
    def of(cls, outcome: Outcome, commit: str) -> Record:
        finding = outcome.finding
        return cls(
            seed=outcome.seed,
            hours=round(outcome.hours, 4),
            faults=outcome.faults,
            actions=outcome.actions,
            nodes=outcome.nodes,
            services=outcome.services,
            settled_after=outcome.settled_after,
            seconds=round(outcome.seconds, 2),
            trace=outcome.trace,
            finding=f"{finding.invariant}: {finding.text}" if finding is not None else "",
            commit=commit,
        )

    def lacks(self) -> str:
        """What it has too little of to count; "" when nothing, or when it is too short to tell."""
        if self.finding or self.hours < SHORT:
            return ""
        wrong = [
            f"{there:.0f} {what}"
            for what, there, least in (
                ("nodes", self.nodes, NODES),
                ("services", self.services, SERVICES),
                ("faults an hour", self.faults / self.hours, FAULTS),
                ("actions an hour", self.actions / self.hours, ACTIONS),
            )
            if there < least
        ]
        return ", ".join(wrong)


def read(path: Path) -> dict[int, Record]:
    """By seed. A last line that was cut off by a crash is left out."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = Record(**json.loads(line))
        except ValueError:
            continue
        found[record.seed] = record
    return found


def append(path: Path, record: Record) -> None:
    """On a line of its own, also where the last one was cut off."""
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(asdict(record)).encode() + b"\n")


def commit() -> str:
    """Of the code that runs; "-dirty" when it differs from that commit."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()
