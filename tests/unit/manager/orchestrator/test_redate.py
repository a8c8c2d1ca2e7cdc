from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support import build

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator import slots
from pyswarm_manager.orchestrator.redate import SLACK, redate
from pyswarm_manager.plan import Put

NOW = 1_000_000.0
DELAY = 20.0

times = st.sampled_from([0.0, NOW - 7200, NOW - 0.001, NOW, NOW + 0.5, NOW + 1.5, NOW + 3600, NOW + 3601])
dates = st.tuples(st.integers(1, 3), times, times, times)


def tasks_of(drawn: list[tuple[int, float, float, float]]) -> list[pb.Task]:
    service = build.service(build.service_spec())
    service.spec.task.restart.delay = DELAY
    found = []
    for number, (slot, created_at, window_at, start_after) in enumerate(drawn):
        task = build.task(f"t{number}", service, slot=slot, created_at=created_at)
        task.window_at, task.start_after = window_at, start_after
        found.append(task)
    return found


@given(st.lists(dates, max_size=8))
def test_nothing_is_dated_in_the_future_and_all_is_in_the_order_that_it_had(
    drawn: list[tuple[int, float, float, float]],
) -> None:
    before = {task.id: task for task in tasks_of(drawn)}
    after = dict(before)
    for step in redate(slots.group(before.values(), is_global=False).values(), NOW):
        for write in step:
            assert isinstance(write, Put) and isinstance(write.message, pb.Task)
            after[write.message.id] = write.message
    for task in after.values():
        was = before[task.id]
        assert max(task.created_at, task.window_at) <= NOW + SLACK
        assert task.start_after <= NOW + DELAY + SLACK
        assert (task.created_at == was.created_at) or was.created_at > NOW - 0.1
        assert bool(task.start_after) is bool(was.start_after) and bool(task.window_at) is bool(was.window_at)
    for slot in (1, 2, 3):
        order = [t.id for t in sorted(before.values(), key=slots.age) if t.slot == slot]
        assert order == [t.id for t in sorted(after.values(), key=slots.age) if t.slot == slot]
    assert not redate(slots.group(after.values(), is_global=False).values(), NOW), "once is enough"


def test_clocks_that_nearly_agree_change_nothing() -> None:
    tasks = tasks_of([(1, NOW + SLACK, NOW + SLACK, NOW + DELAY + SLACK), (1, NOW, 0, 0)])
    assert not redate(slots.group(tasks, is_global=False).values(), NOW)
