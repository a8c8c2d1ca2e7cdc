"""What every daemon tells of itself."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def new_registry() -> CollectorRegistry:
    """With the usual `process_…` figures and the version. One for each daemon, so that several can live in one
    process."""
    from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    info = Gauge("pyswarm_build_info", "Always 1; the version is in the label.", ["version"], registry=registry)
    info.labels(_version()).set(1)
    return registry


def _version() -> str:
    try:
        return metadata.version("pyswarm-orchestrator")
    except metadata.PackageNotFoundError:
        return "0"
