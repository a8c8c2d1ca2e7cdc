"""How faults are made, and the list of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GROUPS = ("planners", "loops", "fencing", "drain", "agent", "exclusive")


@dataclass(frozen=True, slots=True)
class Fault:
    """`plant` cannot be undone: use a process for each."""

    group: str
    name: str
    plant: Callable[[], None]


FAULTS: dict[str, Fault] = {}


def fault(group: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a function, whose name is what goes wrong."""
    assert group in GROUPS

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        name = plant.__name__.replace("_", " ")
        assert name not in FAULTS
        FAULTS[name] = Fault(group, name, plant)
        return plant

    return register


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """`make` gets what is there, and returns what takes its place."""
    replacing(owner, name, make)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    before = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
    setattr(owner, name, make(before))


replacing: Callable[[Any, str, Callable[[Any], Any]], None] = _replace


def chosen(words: Sequence[str]) -> list[str]:
    """Faults by their group or by a part of their name; all when nothing is named."""
    return [
        name for name, one in load().items() if not words or one.group in words or any(word in name for word in words)
    ]


def load() -> dict[str, Fault]:
    from tests.simulation.faults import agent, drain, exclusive, fencing, loops, planners

    assert all((agent, drain, exclusive, fencing, loops, planners))
    return FAULTS
