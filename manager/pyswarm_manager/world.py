"""The World that planners read, kept up to date by a WatchCache, and the changes told to whoever subscribed.

All of it lives on one event loop. A planner runs without an await, so it sees one consistent revision though the
view is live: the cache tells all changes of a revision without an await in between, and then the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pyswarm_core.kinds import MESSAGES, Stored
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("manager.world")


@dataclass(frozen=True, slots=True)
class Change:
    """One object was created (old None), replaced, or deleted (new None)."""

    kind: str
    id: str
    old: Stored | None
    new: Stored | None


Subscriber = Callable[[Sequence[Change], int], None]


class CachedWorld:
    """A `plan.World`, and the `Listener` of a WatchCache. Its indexes answer without a scan."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Stored]] = {kind: {} for kind in MESSAGES}
        self._of_service: dict[str, dict[str, pb.Task]] = {}
        self._of_node: dict[str, dict[str, pb.Task]] = {}
        self._revision = 0
        self._changes: list[Change] = []
        self._subscribers: list[Subscriber] = []

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def services(self) -> Mapping[str, pb.Service]:
        return cast("Mapping[str, pb.Service]", self._objects["service"])

    @property
    def tasks(self) -> Mapping[str, pb.Task]:
        return cast("Mapping[str, pb.Task]", self._objects["task"])

    @property
    def nodes(self) -> Mapping[str, pb.Node]:
        return cast("Mapping[str, pb.Node]", self._objects["node"])

    @property
    def networks(self) -> Mapping[str, pb.Network]:
        return cast("Mapping[str, pb.Network]", self._objects["network"])

    @property
    def rollouts(self) -> Mapping[str, pb.Rollout]:
        return cast("Mapping[str, pb.Rollout]", self._objects["rollout"])

    @property
    def auths(self) -> Mapping[str, pb.RegistryAuth]:
        return cast("Mapping[str, pb.RegistryAuth]", self._objects["registryauth"])

    def tasks_of_service(self, service_id: str) -> Sequence[pb.Task]:
        return tuple(self._of_service.get(service_id, {}).values())

    def tasks_of_node(self, node_id: str) -> Sequence[pb.Task]:
        return tuple(self._of_node.get(node_id, {}).values())

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """`subscriber(changes, revision)` is called once per batch, synchronously, when the world is consistent
        again; with no changes when only time passed. Returns what ends the subscription."""
        self._subscribers.append(subscriber)

        def cancel() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return cancel

    def on_change(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        if new is None:
            self._objects[kind].pop(object_id, None)
        else:
            self._objects[kind][object_id] = new
        if kind == "task":
            self._index(object_id, cast("pb.Task | None", old), cast("pb.Task | None", new))
        self._changes.append(Change(kind, object_id, old, new))

    def on_revision(self, revision: int) -> None:
        self._revision = revision
        changes, self._changes = self._changes, []
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(changes, revision)
            except Exception:  # one reader's fault must not stop the cache, on which everybody lives
                log.exception("a subscriber of the world failed")

    def _index(self, task_id: str, old: pb.Task | None, new: pb.Task | None) -> None:
        if old is not None:
            _drop(self._of_service, old.service_id, task_id, new is not None and new.service_id == old.service_id)
            _drop(self._of_node, old.node_id, task_id, new is not None and new.node_id == old.node_id)
        if new is not None:
            self._of_service.setdefault(new.service_id, {})[task_id] = new
            if new.node_id:
                self._of_node.setdefault(new.node_id, {})[task_id] = new


def _drop(index: dict[str, dict[str, pb.Task]], key: str, task_id: str, stays: bool) -> None:
    """Takes the task out, unless it stays under the same key (then its place in the order stays, too)."""
    if stays or key not in index:
        return
    index[key].pop(task_id, None)
    if not index[key]:
        del index[key]
