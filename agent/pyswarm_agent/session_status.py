"""Statuses on their way to the manager: the newest of each task, until the manager has stored it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb

# Seconds that a status waits for others. Somebody waits for an urgent one (endpoints, rollouts); the others are for
# people to read, and each costs a write to the store: most of a quick start's are replaced before they are sent.
COALESCE, COALESCE_URGENT = 0.1, 0.002
MAX_BATCH = 500  # updates in a message


class StatusBox:
    """What was put and not acknowledged is sent again in the next session; a newer status replaces an older one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, monotonic."""
        self._clock = clock
        self._waiting: dict[str, wire.StatusUpdate] = {}
        self._due_at: dict[str, float] = {}  # of those
        self._sent: deque[wire.StatusBatch] = deque()  # of this session, not stored yet
        self._stored = 0  # batches of this session
        self._due: float | None = None
        self.changed = asyncio.Event()

    @property
    def due(self) -> float | None:
        """When the next batch is to be sent; None: there is nothing to tell."""
        return self._due

    @property
    def unstored(self) -> int:
        """Updates that no manager has stored yet."""
        return len(self._waiting) + sum(len(b.updates) for b in self._sent)

    def put(self, update: wire.StatusUpdate) -> None:
        earlier = self._waiting.get(update.task_id)
        if earlier is not None and earlier.HasField("adopted") and not update.HasField("adopted"):
            update.adopted.CopyFrom(earlier.adopted)
        self._waiting[update.task_id] = update
        due = self._clock() + (COALESCE_URGENT if is_urgent(update.status) else COALESCE)
        due = self._due_at[update.task_id] = min(due, self._due_at.get(update.task_id, due))
        if self._due is None or due < self._due:
            self._due = due
            self.changed.set()

    def take(self) -> wire.StatusBatch | None:
        """The next batch, when it is due; it counts as sent. A successor is never due before its predecessor's end."""
        now = self._clock()
        if self._due is None or now < self._due:
            return None
        due = [update for task_id, update in self._waiting.items() if self._due_at[task_id] <= now][:MAX_BATCH]
        for update in due:
            del self._waiting[update.task_id], self._due_at[update.task_id]
        self._due = min(self._due_at.values(), default=None)
        batch = wire.StatusBatch(updates=due)
        self._sent.append(batch)
        return batch

    def stored(self, batches: int) -> list[wire.StatusUpdate]:
        """The manager's count of this session's batches; returns what is newly stored."""
        news: list[wire.StatusUpdate] = []
        while self._stored < batches and self._sent:
            news += self._sent.popleft().updates
            self._stored += 1
        return news

    def new_session(self) -> None:
        """Nobody knows which of the last session's batches were stored: all that was not acknowledged is told again, in
        the old order, for a successor must come after its predecessor."""
        waiting, self._waiting = self._waiting, {}
        for update in [*(u for batch in self._sent for u in batch.updates), *waiting.values()]:
            earlier = self._waiting.get(update.task_id)
            if earlier is not None and earlier.HasField("adopted") and not update.HasField("adopted"):
                update.adopted.CopyFrom(earlier.adopted)
            self._waiting[update.task_id] = update
        self._sent.clear()
        self._stored = 0
        self._due_at = dict.fromkeys(self._waiting, self._clock())
        self._due = self._clock() if self._waiting else None
        self.changed.set()

    def forget(self, task_id: str) -> None:
        """The manager does not know the task any more."""
        self._waiting.pop(task_id, None)
        self._due_at.pop(task_id, None)
        self._due = min(self._due_at.values(), default=None)


def is_urgent(status: pb.TaskStatus) -> bool:
    return status.state in (pb.TASK_STATE_READY, pb.TASK_STATE_RUNNING) or status.state >= pb.TASK_STATE_COMPLETE
