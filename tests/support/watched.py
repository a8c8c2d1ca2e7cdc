"""A FakeWorld that checks at every write what must hold for tasks at all times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import Delete, Write
from pyswarm_manager.tasks import is_endpoint, is_terminal
from tests.support.world import FakeWorld


class WatchedWorld(FakeWorld):
    """Checks every write, and remembers which endpoints there were at each revision."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoints_at: dict[int, dict[str, tuple[str, ...]]] = {1: {}}  # revision → task id → addresses
        self.ids: set[str] = set()

    def _commit(self, writes: Sequence[Write], written: Mapping[str, int] | None) -> None:
        before = {w.message.id: self.tasks.get(w.message.id) for w in writes if isinstance(w.message, pb.Task)}
        super()._commit(writes, written)
        for write in writes:
            if not isinstance(write.message, pb.Task):
                continue
            old = before[write.message.id]
            if isinstance(write, Delete):
                assert old is not None and is_terminal(old) and old.addresses_free, f"deleted too early: {old}"
            elif old is None:
                assert write.message.id not in self.ids, "a task id was used twice"
                self.ids.add(write.message.id)
            else:
                _advances(old, write.message)
        self.endpoints_at[self.revision] = {
            t.id: tuple(a.address for a in t.addresses)
            for t in self.tasks.values()
            if is_endpoint(t, self.nodes.get(t.node_id))
        }


def _advances(old: pb.Task, new: pb.Task) -> None:
    assert new.desired_state >= old.desired_state, f"desired state went back: {old} {new}"
    assert new.status.state >= old.status.state, f"state went back: {old} {new}"
    for flag in ("leaving", "released", "addresses_free"):
        assert getattr(new, flag) >= getattr(old, flag), f"{flag} was taken back"
    assert new.spec == old.spec and new.slot == old.slot and new.service_id == old.service_id
    assert not is_terminal(old) or new.status == old.status, "a dead task's status changed"
    if new.released and not old.released and new.status.state != pb.TASK_STATE_ORPHANED:
        assert new.leaving, "released without leaving"
