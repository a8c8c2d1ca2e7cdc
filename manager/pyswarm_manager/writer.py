"""Carries plans out: turns each into transactions that a deposed leader, or anyone with an old view, cannot make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pyswarm_core import kinds
from pyswarm_core.errors import Conflict, Deposed, OutcomeUnknown, StoreUnavailable
from pyswarm_core.log import get_logger
from pyswarm_core.store import base
from pyswarm_core.store.base import MAX_TXN_OPS, Compare, Field, Op, Store
from pyswarm_manager.plan import Plan, Put, Write

log = get_logger("manager.writer")

# etcd refuses requests over 1.5 MiB. Less, because keys and compares are not counted exactly.
MAX_TXN_BYTES = 1_000_000
_ATTEMPTS = 3


@dataclass(slots=True)
class _Batch:
    """Whole steps that go into one transaction."""

    writes: dict[str, Write] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    size: int = 0

    def takes(self, other: _Batch, room: int) -> bool:
        return (
            len(self.writes) + len(other.writes) <= room
            and self.size + other.size <= MAX_TXN_BYTES
            and self.writes.keys().isdisjoint(other.writes)
        )

    def add(self, other: _Batch) -> None:
        self.writes.update(other.writes)
        self.ops.extend(other.ops)
        self.size += other.size


class Writer:
    """`fence`: the leadership's, for everything that only the leader may do; None for writes that any manager may make
    (the API's), which then are guarded by their objects' versions alone."""

    def __init__(self, store: Store, fence: Compare | None) -> None:
        self._store = store
        self._fence = fence

    async def apply(self, plan: Plan, *, guards: Sequence[Compare] = ()) -> int:
        """Returns the revision of the last transaction, 0 if the plan is empty. `guards` must hold for each of them.

        A step is atomic; small steps that follow each other share a transaction. An object that two steps write is
        expected, by the second, to be as the first left it.

        Raises Deposed or Conflict: from the failing transaction on nothing was written. StoreUnavailable: the same.
        OutcomeUnknown: the last one may have been. Afterwards the world has to be read and planned anew.
        """
        fixed = [*([self._fence] if self._fence else []), *guards]
        written: dict[str, int] = {}
        revision = 0
        for batch in _batches(plan, MAX_TXN_OPS - len(fixed)):
            expected = {key: written.get(key, write.message.version) for key, write in batch.writes.items()}
            revision = await self._transact(fixed, expected, batch.ops)
            for key, write in batch.writes.items():
                written[key] = revision if isinstance(write, Put) else 0
        return revision

    async def _transact(self, fixed: Sequence[Compare], expected: dict[str, int], ops: Sequence[Op]) -> int:
        compares = [*fixed, *(Compare(key, Field.MOD, version) for key, version in expected.items())]
        unknown: OutcomeUnknown | None = None
        try:
            for _ in range(_ATTEMPTS):
                try:
                    result = await self._store.txn(compares, ops)
                except OutcomeUnknown as error:
                    # Reading alone would not settle it: the write may still be on its way. Repeating it is safe, as it
                    # changes every version that it compares: of all repetitions at most one happens. (Where all are of
                    # objects that are not there yet, as long as none is deleted: see transactions.guarded.)
                    unknown = error
                    if revision := await self._found(expected, ops):
                        return revision
                    log.warning("outcome unknown, trying the same guarded write again", error=error)
                    continue
                if result.succeeded:
                    return result.revision
                if unknown and (revision := await self._found(expected, ops)):
                    return revision
                raise await self._refusal(fixed, expected)
        except StoreUnavailable:
            if unknown:  # of the repetition or of the reading nothing happened; of the first write, who knows
                raise unknown from None
            raise
        assert unknown is not None
        raise unknown

    async def _found(self, expected: dict[str, int], ops: Sequence[Op]) -> int:
        """The revision at which the store came to hold exactly what `ops` write; 0 if it does not hold it."""
        revisions: set[int] = set()
        for op in ops:
            entry = await self._store.get(op.key)
            if isinstance(op, base.Put):
                if entry is None or entry.value != op.value or entry.mod_revision == expected[op.key]:
                    return 0
                revisions.add(entry.mod_revision)
            elif entry is not None:
                return 0
        if not revisions:  # only deletions, and all are gone: any revision from now on is after them
            return (await self._store.txn([], [])).revision
        return revisions.pop() if len(revisions) == 1 else 0

    async def _refusal(self, fixed: Sequence[Compare], expected: dict[str, int]) -> Conflict | Deposed:
        if self._fence:
            leader = await self._store.get(kinds.LEADER_KEY)
            if leader is None or leader.create_revision != self._fence.value:
                return Deposed("this manager does not lead any more: another one has taken over")
        for key, version in expected.items():
            entry = await self._store.get(key)
            current = entry.mod_revision if entry else 0
            if current != version:
                now = "is gone" if not current else f"is at version {current}"
                was = f"was expected at version {version}" if version else "was expected not to exist"
                return Conflict(f"{key.removeprefix(kinds.PREFIX)} {was} and {now}: read it again")
        for guard in fixed:
            if guard is not self._fence:
                return Conflict(f"{guard.key.removeprefix(kinds.PREFIX)} has changed meanwhile: read it again")
        return Conflict("something changed meanwhile and changed back: read it again")


def _batches(plan: Plan, room: int) -> Iterator[_Batch]:
    """ValueError if a step is too large for one transaction, or writes an object twice."""
    pending = _Batch()
    for step in plan.steps:
        batch = _step(step)
        if len(batch.writes) > room:
            raise ValueError(f"a step of {len(step)} writes: at most {room} fit one transaction")
        if not pending.takes(batch, room):
            yield pending
            pending = _Batch()
        pending.add(batch)
    if pending.writes:
        yield pending


def _step(step: Sequence[Write]) -> _Batch:
    batch = _Batch()
    for write in step:
        key = kinds.key_of(write.message)
        if key in batch.writes:
            raise ValueError(f"a step that writes {key} twice")
        batch.writes[key] = write
        if isinstance(write, Put):
            value = kinds.encode(write.message)
            batch.ops.append(base.Put(key, value))
            batch.size += len(value)
        else:
            batch.ops.append(base.Delete(key))
        batch.size += 2 * len(key)
    return batch
