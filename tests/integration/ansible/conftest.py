"""Five real hosts, and the operator who makes a cluster of them. One fleet for all tests, which follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.ansible.cluster import MANAGERS, WORKERS, Cluster
from tests.integration.ansible.playbooks import Operator
from tests.support.machines import trees
from tests.support.machines.fleet import Fleet


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """Bare hosts; the tests make it a cluster."""
    if why := trees.missing():
        pytest.skip(why)
    with Fleet("ansible", MANAGERS + WORKERS + 1, bare=[MANAGERS + WORKERS + 1]) as fleet:
        fleet.boot(fleet.machines)
        fleet.build_images()
        yield Cluster(fleet, Operator(fleet, fleet.wheel()))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "load.json"
