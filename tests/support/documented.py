"""The tables of docs/metrics.md."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.lab import REPOSITORY

DOCUMENT = REPOSITORY / "docs/metrics.md"
_BACKEND = frozenset({"name", "service", "task", "slot", "node"})
_SETS = {"backend": _BACKEND, "container": _BACKEND | {"id", "image"}}
_ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) \| (.+?) \|")


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str
    labels: frozenset[str]
    meaning: str
    components: frozenset[str]  # manager, agent


def documented() -> list[Metric]:
    """A heading says in brackets who tells of what is below it: `## Containers (agent)`."""
    found = []
    components: frozenset[str] = frozenset()
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            components = frozenset(re.findall(r"manager|agent", line.rpartition("(")[2]))
        elif row := _ROW.fullmatch(line):
            labels = frozenset(re.findall(r"`(\w+)`", row[3])).union(
                *(s for n, s in _SETS.items() if row[3].startswith(n))
            )
            found.append(Metric(row[1], row[2], labels, row[4], components))
    return found
