"""How faults are made, and the list of all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LATE = 150  # a revision that the store has soon, and the fakes of unit tests do not
SECOND = 40  # one that it has when its first leader is gone
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


def replace(owner: Any, name: str, make: Callable[[Any], Any], where: Callable[..., object] | None = None) -> None:
    """`make` gets what is there, and returns what takes its place; or does so only `where` the arguments are such: what
    goes wrong among few, or at once, the unit tests see. Of a property, the argument is its owner."""
    fitted = _fitted(make)
    replacing(owner, name, fitted if where is None else _only(fitted, where))


def _fitted(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Raises TypeError for what cannot be called as what it replaces is: it would be found for that alone."""

    def fitted(before: Any) -> Any:
        faulty = make(before)
        if inspect.isfunction(before):
            parameters = inspect.signature(before).parameters.values()
            positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
            for count in {len(positional), sum(p.default is p.empty for p in positional)}:
                inspect.signature(faulty).bind(*[None] * count, **named)
        return faulty

    return fitted


def _only(make: Callable[[Any], Any], where: Callable[..., object]) -> Callable[[Any], Any]:
    def both(before: Any) -> Any:
        faulty = make(before)
        if isinstance(before, property):
            return property(lambda self: (faulty if where(self) else before).fget(self))

        @functools.wraps(before)
        def call(*given: Any, **options: Any) -> Any:
            return (faulty if where(*given, **options) else before)(*given, **options)

        return call

    return both


def is_large(world: Any, *_: Any) -> bool:
    """A cluster of five nodes."""
    return len(world.nodes) >= 5


def is_late(node: Any, *_: Any) -> bool:
    """The fourth node that was registered, or a later one."""
    return node is not None and node.number >= 4


def is_second(life: Any, *_: Any) -> bool:
    """Of a task that took another one's place."""
    return bool(life.task.predecessor_id)


def is_busy(supervisor: Any, *_: Any, **__: Any) -> bool:
    """A host with four tasks."""
    return len(supervisor.lives()) >= 4


def standing(owner: Any, name: str) -> Any:
    """What a fault would replace."""
    return owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(owner, name, make(standing(owner, name)))


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
