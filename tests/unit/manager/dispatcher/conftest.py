from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.manager import Cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster.make() as cluster:
        yield cluster
        cluster.check_agents()
