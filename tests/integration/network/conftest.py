from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.network.bed import NEED_ROOT, Bed, beds


@pytest.fixture
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip(NEED_ROOT)
    yield from beds()
