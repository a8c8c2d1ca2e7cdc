"""Group commit of reports, on an applier that a test holds back, and one that fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.support.manual_clock import ManualClock, settle

from pyswarm_core.errors import Conflict, Deposed, OutcomeUnknown, StoreUnavailable
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher.reports import Reports
from pyswarm_manager.plan import Plan, Put
from pyswarm_manager.world import CachedWorld

FAILED = pb.TASK_STATE_FAILED


class Applier:
    """Applies to the world at once, when it may; fails first as often as it was told."""

    def __init__(self, world: CachedWorld) -> None:
        self.world = world
        self.plans: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception] = []
        self.poison = ""

    async def apply(self, plan: Plan) -> int:
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        puts = [write for step in plan.steps for write in step if isinstance(write, Put)]
        self.plans.append([put.message.id for put in puts])
        if self.poison in self.plans[-1]:
            raise ValueError("cannot be encoded")
        revision = self.world.revision + 1
        for put in puts:
            self.world.on_change("task", put.message.id, self.world.tasks.get(put.message.id), put.message)
        self.world.on_revision(revision)
        return revision


class Session:
    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.acked = 0
        self.mentioned: list[str] = []

    def stored(self, batches: int, task_ids: Sequence[str]) -> None:
        self.acked = batches
        self.mentioned += task_ids


class Bed:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.world = CachedWorld()
        for n in range(8):
            status = pb.TaskStatus(state=pb.TASK_STATE_RUNNING)
            task = pb.Task(id=f"t{n}", node_id=f"n{n % 2}", service_id="s", status=status)
            self.world.on_change("task", task.id, None, task)
        self.world.on_revision(1)
        self.applier = Applier(self.world)
        self.reports = Reports(self.world, self.applier, self._catch_up, self.clock, random.Random(1))
        self.sessions = [Session("n0"), Session("n1")]

    async def _catch_up(self, revision: int) -> None:
        assert self.world.revision >= revision

    def report(self, number: int, state: int = FAILED, **fields: object) -> None:
        update = wire.StatusUpdate(task_id=f"t{number}", status=pb.TaskStatus(state=state, **fields))
        self.reports.add(self.sessions[number % 2], wire.StatusBatch(updates=[update]))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.reports.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def state(self, number: int) -> int:
        return self.world.tasks[f"t{number}"].status.state


@pytest.fixture
async def bed() -> Bed:
    return Bed()


async def test_what_comes_while_a_write_is_under_way_is_one_write(bed: Bed) -> None:
    async with bed.running():
        bed.applier.gate.clear()
        bed.report(0)
        await settle()
        for number in range(1, 8):
            bed.report(number)
        await settle()
        assert bed.sessions[0].acked == 0
        bed.applier.gate.set()
        await settle()
        assert [len(plan) for plan in bed.applier.plans] == [1, 7]
        assert [session.acked for session in bed.sessions] == [4, 4]
        assert sorted(bed.sessions[1].mentioned) == ["t1", "t3", "t5", "t7"]


async def test_the_newest_report_of_a_task_replaces_those_that_wait(bed: Bed) -> None:
    async with bed.running():
        bed.applier.gate.clear()
        bed.report(2)
        await settle()
        for message in "abc":
            bed.report(0, pb.TASK_STATE_RUNNING, message=message)
        bed.applier.gate.set()
        await settle()
        assert bed.world.tasks["t0"].status.message == "c"
        assert bed.applier.plans == [["t2"], ["t0"]]
        assert bed.sessions[0].acked == 4, "each batch counts, though its content was overtaken"


@pytest.mark.parametrize(
    "error", [Conflict("x"), StoreUnavailable("x"), OutcomeUnknown("x")], ids=lambda e: type(e).__name__
)
async def test_nothing_is_acknowledged_before_it_is_stored(bed: Bed, error: Exception) -> None:
    bed.applier.errors = [error, error, error]
    async with bed.running():
        bed.report(0)
        await settle()
        assert bed.sessions[0].acked == 0
        await bed.clock.advance(10)
        assert (bed.sessions[0].acked, bed.state(0)) == (1, FAILED)


async def test_a_report_that_cannot_be_stored_takes_no_other_with_it(bed: Bed) -> None:
    bed.applier.poison = "t3"
    async with bed.running() as task:
        for number in range(8):
            bed.report(number)
        await settle()
        assert [bed.state(n) == FAILED for n in range(8)] == [n != 3 for n in range(8)]
        assert [session.acked for session in bed.sessions] == [4, 4]
        assert not task.done()


async def test_a_deposed_leader_acknowledges_nothing(bed: Bed) -> None:
    bed.applier.errors = [Deposed("x")]
    async with bed.running() as task:
        bed.report(0)
        with pytest.raises(Deposed):
            await task
    assert bed.sessions[0].acked == 0


async def test_of_a_session_that_has_ended_the_reports_are_stored_all_the_same(bed: Bed) -> None:
    async with bed.running():
        bed.applier.gate.clear()
        bed.report(0)
        await settle()
        bed.report(2)
        bed.reports.forget(bed.sessions[0])
        bed.applier.gate.set()
        await settle()
        assert bed.state(0) == bed.state(2) == FAILED
        assert bed.sessions[0].acked == 0
