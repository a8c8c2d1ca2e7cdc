"""What is stored, at the moment at which it is stored, decoded: what all checks look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyswarm_core import kinds
from pyswarm_core.kinds import Stored
from pyswarm_core.store.base import Event, EventKind
from pyswarm_manager.world import CachedWorld

Listener = Callable[[str, str, Stored | None, Stored | None], None]


class Truth(CachedWorld):
    """A `plan.World` without delay. `listeners` hear (kind, id, old, new) of each change, when the whole revision is
    known."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []

    def observe(self, revision: int, events: Sequence[Event]) -> None:
        changes: list[tuple[str, str, Stored | None, Stored | None]] = []
        for event in events:
            kind, _, object_id = event.entry.key.removeprefix(kinds.PREFIX).partition("/")
            if not event.entry.key.startswith(kinds.PREFIX) or kind not in kinds.MESSAGES:
                continue
            old = self._objects[kind].get(object_id)
            new = (
                kinds.decode(kind, event.entry.value, event.entry.mod_revision) if event.kind is EventKind.PUT else None
            )
            self.on_change(kind, object_id, old, new)
            changes.append((kind, object_id, old, new))
        if changes:
            self.on_revision(revision)
        for change in changes:
            for listener in self.listeners:
                listener(*change)
