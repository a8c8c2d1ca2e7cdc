"""An in-memory world for planner tests: the stored objects, etcd's version rules, and nothing else.

`FakeWorld` is a `plan.World`. What a planner returns is carried out with `apply`, which compares versions as the real
executor does, and which also notices a planner that changed a message it was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pyswarm_core import kinds
from pyswarm_core.errors import Conflict
from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import Delete, Plan, Put, Write

T = TypeVar("T", bound=Stored)

MAX_WRITES = 127  # beside the leader's compare, in one etcd transaction
MAX_BYTES = 1_500_000


class FakeWorld:
    """Every transaction raises `revision`; an object's `version` is the revision of its last write, as in etcd."""

    def __init__(self) -> None:
        self._revision = 1
        self._kinds: dict[str, dict[str, Stored]] = {kind: {} for kind in kinds.MESSAGES}
        self._written: dict[str, bytes] = {}  # key → what was stored, to notice changes made in place
        self.ids_created: list[str] = []  # of tasks, in order, deleted ones too

    # plan.World

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def services(self) -> Mapping[str, pb.Service]:
        return self._kinds["service"]  # type: ignore[return-value]

    @property
    def tasks(self) -> Mapping[str, pb.Task]:
        return self._kinds["task"]  # type: ignore[return-value]

    @property
    def nodes(self) -> Mapping[str, pb.Node]:
        return self._kinds["node"]  # type: ignore[return-value]

    @property
    def networks(self) -> Mapping[str, pb.Network]:
        return self._kinds["network"]  # type: ignore[return-value]

    @property
    def rollouts(self) -> Mapping[str, pb.Rollout]:
        return self._kinds["rollout"]  # type: ignore[return-value]

    @property
    def auths(self) -> Mapping[str, pb.RegistryAuth]:
        return self._kinds["registryauth"]  # type: ignore[return-value]

    @property
    def managers(self) -> Mapping[str, pb.Manager]:
        return self._kinds["manager"]  # type: ignore[return-value]

    @property
    def removed(self) -> Mapping[str, pb.RemovedNode]:
        return self._kinds["removed"]  # type: ignore[return-value]

    def tasks_of_service(self, service_id: str) -> Sequence[pb.Task]:
        return [t for t in self.tasks.values() if t.service_id == service_id]

    def tasks_of_node(self, node_id: str) -> Sequence[pb.Task]:
        return [t for t in self.tasks.values() if t.node_id == node_id]

    def rollouts_of_service(self, service_id: str) -> Sequence[pb.Rollout]:
        return [r for r in self.rollouts.values() if r.service_id == service_id]

    # writing

    def put(self, *messages: T) -> T:
        """One transaction of somebody else's, without compares; stores copies. Returns the last one as it is stored."""
        self._commit(tuple(Put(m) for m in messages), None)
        return self.get(messages[-1])

    def delete(self, *messages: Stored) -> None:
        self._commit(tuple(Delete(m) for m in messages), None)

    def get(self, message: T) -> T:
        """The stored object with this one's kind and id."""
        return self._kinds[kinds.KIND_OF[type(message)]][message.id]  # type: ignore[return-value,index]

    def apply(self, plan: Plan, steps: int | None = None) -> None:
        """Carries out the first `steps` steps (None = all). Conflict: a version differs; that step wrote nothing. What
        an earlier step has written is expected as that left it, as the real executor does."""
        self.check_untouched()
        written: dict[str, int] = {}
        for step in plan.steps[:steps]:
            self._commit(step, written)
            written.update((kinds.key_of(write.message), self._revision) for write in step)

    def check_untouched(self) -> None:
        """AssertionError when somebody changed a stored message in place."""
        for kind, objects in self._kinds.items():
            for message in objects.values():
                key = kinds.key(kind, message.id)
                assert message.SerializeToString(deterministic=True) == self._written[key], f"{key} changed in place"

    def _commit(self, writes: Sequence[Write], written: Mapping[str, int] | None) -> None:
        """`written`: versions that count instead of the messages'; None: whatever is there is replaced."""
        keys = [kinds.key_of(w.message) for w in writes]
        assert writes, "an empty transaction"
        assert len(set(keys)) == len(keys), f"a key twice in one transaction: {keys}"
        assert len(writes) <= MAX_WRITES, f"{len(writes)} writes in one transaction"
        assert sum(w.message.ByteSize() for w in writes) <= MAX_BYTES, "transaction too large"
        for key, write in zip(keys, writes, strict=True):
            message = write.message
            stored = self._kinds[kinds.KIND_OF[type(message)]].get(message.id)
            found = 0 if stored is None else stored.version
            if written is not None and found != written.get(key, message.version):
                raise Conflict(f"{key} has version {found}, not {message.version}")
            assert message.id, f"{key} without an id"
        self._revision += 1
        for key, write in zip(keys, writes, strict=True):
            kind = kinds.KIND_OF[type(write.message)]
            if isinstance(write, Delete):
                self._kinds[kind].pop(write.message.id, None)
                self._written.pop(key, None)
                continue
            if kind == "task" and write.message.id not in self._kinds[kind]:
                self.ids_created.append(write.message.id)
            copy = kinds.decode(kind, kinds.encode(write.message), self._revision)
            self._kinds[kind][copy.id] = copy
            self._written[key] = copy.SerializeToString(deterministic=True)


class FakeAcks:
    """Settable acknowledgements: node → the highest endpoint revision it has applied."""

    def __init__(self) -> None:
        self.revisions: dict[str, int] = {}

    def applied(self, node_id: str) -> int:
        return self.revisions.get(node_id, 0)

    def apply_all(self, world: FakeWorld) -> None:
        """Every node has everything."""
        self.revisions = dict.fromkeys(world.nodes, world.revision)
