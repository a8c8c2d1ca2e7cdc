"""The World that planners read, kept up to date by a WatchCache, and the changes told to whoever subscribed.

All of it lives on one event loop. A planner runs without an await, so it sees one consistent revision though the
view is live: the cache tells all changes of a revision without an await in between, and then the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from pyswarm_core.kinds import MESSAGES, Stored
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("manager.world")

T = TypeVar("T", pb.Task, pb.Rollout)


@dataclass(frozen=True, slots=True)
class Change:
    """One object was created (old None), replaced, or deleted (new None)."""

    kind: str
    id: str
    old: Stored | None
    new: Stored | None


Subscriber = Callable[[Sequence[Change], int], None]


class Index(Generic[T]):
    """Objects by a key of theirs; "" is no key. In order of arrival, which a change of the object does not alter."""

    def __init__(self, key_of: Callable[[T], str]) -> None:
        self._key_of: Callable[[T], str] = key_of
        self._groups: dict[str, dict[str, T]] = {}

    def get(self, key: str) -> tuple[T, ...]:
        return tuple(self._groups.get(key, {}).values())

    def change(self, old: T | None, new: T | None) -> None:
        before = self._key_of(old) if old is not None else ""
        after = self._key_of(new) if new is not None else ""
        if old is not None and before and before != after:
            group = self._groups[before]
            del group[old.id]
            if not group:
                del self._groups[before]
        if new is not None and after:
            self._groups.setdefault(after, {})[new.id] = new


class CachedWorld:
    """A `plan.World`, and the `Listener` of a WatchCache. Its indexes answer without a scan."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Stored]] = {kind: {} for kind in MESSAGES}
        self._of_service: Index[pb.Task] = Index(lambda task: task.service_id)
        self._of_node: Index[pb.Task] = Index(lambda task: task.node_id)
        self._rollouts: Index[pb.Rollout] = Index(lambda rollout: rollout.service_id)
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

    @property
    def managers(self) -> Mapping[str, pb.Manager]:
        """Those that live."""
        return cast("Mapping[str, pb.Manager]", self._objects["manager"])

    @property
    def removed(self) -> Mapping[str, pb.RemovedNode]:
        return cast("Mapping[str, pb.RemovedNode]", self._objects["removed"])

    def tasks_of_service(self, service_id: str) -> Sequence[pb.Task]:
        return self._of_service.get(service_id)

    def tasks_of_node(self, node_id: str) -> Sequence[pb.Task]:
        return self._of_node.get(node_id)

    def rollouts_of_service(self, service_id: str) -> Sequence[pb.Rollout]:
        return self._rollouts.get(service_id)

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
            self._of_service.change(cast("pb.Task | None", old), cast("pb.Task | None", new))
            self._of_node.change(cast("pb.Task | None", old), cast("pb.Task | None", new))
        elif kind == "rollout":
            self._rollouts.change(cast("pb.Rollout | None", old), cast("pb.Rollout | None", new))
        self._changes.append(Change(kind, object_id, old, new))

    def on_revision(self, revision: int) -> None:
        self._revision = revision
        changes, self._changes = self._changes, []
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(changes, revision)
            except Exception:  # one reader's fault must not stop the cache, on which everybody lives
                log.exception("a subscriber of the world failed")
