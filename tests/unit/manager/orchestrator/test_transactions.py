from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator.transactions import MAX_BYTES, MAX_WRITES, guarded, pack
from pyswarm_manager.plan import Put


def group(size: int, heavy: int = 0) -> tuple[Put, ...]:
    return tuple(Put(pb.Task(id=f"{number}", service_name="x" * heavy)) for number in range(size))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=30))
def test_groups_are_never_torn_and_keep_their_order(sizes: list[int]) -> None:
    groups = [group(size) for size in sizes]
    steps = pack(groups)
    assert [write for step in steps for write in step] == [write for one in groups for write in one]
    assert all(len(step) <= MAX_WRITES for step in steps)
    ends = {sum(sizes[:n]) for n in range(len(sizes) + 1)}
    reached = 0
    for step in steps:
        reached += len(step)
        assert reached in ends


def test_large_objects_take_more_transactions() -> None:
    steps = pack(group(1, heavy=300_000) for _ in range(7))
    assert [len(step) for step in steps] == [3, 3, 1]
    assert all(sum(write.message.ByteSize() for write in step) <= MAX_BYTES for step in steps)


def test_nothing_to_do_is_no_transaction() -> None:
    assert pack([]) == ()


def test_what_only_creates_is_joined_by_a_guard() -> None:
    guard = pb.Rollout(id="r", version=7)
    known = Put(pb.Task(id="old", version=3))
    steps = guarded((group(100), group(100), (*group(100), known)), guard)
    assert [{write.message.version for write in step} for step in steps] == [{0, 7}, {0, 7}, {0, 3}]


def test_a_guard_that_is_large_has_its_room() -> None:
    guard = pb.Rollout(id="r", version=7, reason="x" * 400_000)
    steps = guarded((group(1, heavy=300_000) for _ in range(4)), guard)
    assert [len(step) for step in steps] == [2] * 4
    assert all(sum(write.message.ByteSize() for write in step) <= MAX_BYTES for step in steps)
