"""The planted faults can be planted: what they replace is there, and they are called as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.simulation.faults import planted


@pytest.fixture
def nothing_replaced() -> Iterator[list[str]]:
    """The names of what would have been."""
    found: list[str] = []

    def make_only(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        make(planted.standing(owner, name))
        found.append(name)

    before, planted.replacing = planted.replacing, make_only
    yield found
    planted.replacing = before


@pytest.mark.parametrize("name", sorted(planted.load()))
def test_it_fits(name: str, nothing_replaced: list[str]) -> None:
    planted.load()[name].plant()
    assert nothing_replaced


def test_what_is_called_otherwise_does_not_fit(nothing_replaced: list[str]) -> None:
    with pytest.raises(TypeError, match="too many positional"):
        planted.replace(planted, "chosen", lambda before: lambda: None)
