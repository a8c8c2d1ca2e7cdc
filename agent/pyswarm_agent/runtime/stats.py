"""What this host's containers use, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pyswarm_agent.runtime.cgroups import Usage


class Counting(Protocol):
    """Of ConmonRuntime."""

    def usage(self) -> Mapping[str, Usage]: ...


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all containers; a container whose group lacks a figure counts as 0 there."""

    containers: int
    memory: int  # bytes
    cpu_seconds: float
    pids: int


def totals(runtime: Counting) -> Totals:
    usage = list(runtime.usage().values())
    return Totals(
        containers=len(usage),
        memory=sum(each.memory or 0 for each in usage),
        cpu_seconds=sum(each.cpu_seconds or 0.0 for each in usage),
        pids=sum(each.pids or 0 for each in usage),
    )
