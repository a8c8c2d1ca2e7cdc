from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.agent.runtime.containers import NEEDS, Containers, missing


@pytest.fixture(params=["crun", "runc"])
async def containers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Containers]:
    """A runtime of its own, by each OCI runtime; afterwards nothing may be left of it."""
    if os.geteuid() != 0 or missing(request.param):
        pytest.skip(NEEDS)
    containers = Containers(tmp_path, request.param)
    try:
        yield containers
    finally:
        await containers.close()
    assert containers.left() == []


@pytest.fixture
async def crun(tmp_path: Path) -> AsyncIterator[Containers]:
    """As `containers`, for what does not depend on the OCI runtime."""
    if os.geteuid() != 0 or missing("crun"):
        pytest.skip(NEEDS)
    containers = Containers(tmp_path, "crun")
    try:
        yield containers
    finally:
        await containers.close()
    assert containers.left() == []
