"""`service logs`: lines of all tasks, from all hosts, merged by time as they come.

Each task has a stream of its own, in order of time; a merge of their heads keeps that. A task that has nothing to say
cannot hold the others up for long: in a followed log it is waited for a moment, and what it says later comes later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import cast

from pyswarm_core.errors import InvalidInput, StoreUnavailable
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.api import refs
from pyswarm_manager.clock import Clock
from pyswarm_manager.dispatcher.logs import LogBroker, LogSource, Wanted
from pyswarm_manager.loops import LiveWorld
from pyswarm_manager.tasks import display_name, is_terminal
from pyswarm_manager.world import Change

MOST_LINES = 500  # of one response
# Seconds. How long lines that are here wait for a task that might still send older ones:
ANSWER_WITHIN = 5.0  # whose host has not answered yet
HOLD = 10.0  # whose host has, when only what there is was asked for
HOLD_FOLLOWED = 0.2  # whose host has, in a followed log


class LogReader:
    """`broker()`: the leader's, None on other managers, which ask the leader by `forward`."""

    def __init__(
        self,
        world: LiveWorld,
        broker: Callable[[], LogBroker | None],
        forward: Callable[[control.LogsRequest], AsyncIterator[control.LogsResponse]],
        clock: Clock,
    ) -> None:
        self._world = world
        self._broker = broker
        self._forward = forward
        self._clock = clock

    async def read(self, request: control.LogsRequest) -> AsyncIterator[control.LogsResponse]:
        """NotFound, PreconditionFailed (ambiguous), InvalidInput; StoreUnavailable: nobody leads now."""
        if request.tail < -1:
            raise InvalidInput(f"{request.tail} last lines are not possible: give 0 or more, or -1 for all.")
        target = refs.service_or_task(self._world, request.ref)
        broker = self._broker()
        if broker is None:
            async for response in self._forward(request):
                yield response
            return
        wanted = Wanted(request.tail, request.since, request.follow)
        run = _Run(self._world, broker, target, wanted, self._clock)
        try:
            async for response in run.responses():
                yield response
        finally:
            await run.close()


class _Feed:
    """One task's lines, as far as they are here."""

    def __init__(self, task: pb.Task, source: LogSource, now: float) -> None:
        self.task = task
        self.source = source
        self.asked_at = now
        self.lines: deque[wire.LogLine] = deque()
        self.arrived_at = 0.0
        self.is_done = False
        self.drained = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None


class _Run:
    def __init__(
        self, world: LiveWorld, broker: LogBroker, target: pb.Service | pb.Task, wanted: Wanted, clock: Clock
    ) -> None:
        self._world = world
        self._broker = broker
        self._target = target
        self._wanted = wanted
        self._clock = clock
        self._feeds: list[_Feed] = []
        self._asked: set[str] = set()  # task ids
        self._introduced: set[str] = set()
        self._warnings: list[str] = []
        self._news = asyncio.Event()
        self._cancel: Callable[[], None] = lambda: None

    async def responses(self) -> AsyncIterator[control.LogsResponse]:
        if isinstance(self._target, pb.Task):
            self._ask([self._world.tasks.get(self._target.id, self._target)], self._wanted)
        else:
            self._ask(self._world.tasks_of_service(self._target.id), self._wanted)
        if self._wanted.follow:
            self._cancel = self._world.subscribe(self._changed)
        while True:
            self._news.clear()
            lines = self._merge()
            if lines or self._warnings:
                yield self._response(lines)
                continue
            if not self._feeds and not self._may_come_more():
                return
            await self._wait()

    async def close(self) -> None:
        self._cancel()
        pumps = []
        for feed in self._feeds:
            self._broker.release(feed.source)
            if feed.pump is not None:
                feed.pump.cancel()
                pumps.append(feed.pump)
        await asyncio.gather(*pumps, return_exceptions=True)

    def _may_come_more(self) -> bool:
        if not self._wanted.follow:
            return False
        if isinstance(self._target, pb.Service):
            return self._target.id in self._world.services
        task = self._world.tasks.get(self._target.id)
        return task is not None and task.id not in self._asked and not is_terminal(task)

    def _ask(self, tasks: Iterable[pb.Task], wanted: Wanted) -> None:
        by_node: dict[str, list[pb.Task]] = {}
        for task in tasks:
            if _may_have_printed(task) and task.id not in self._asked:
                self._asked.add(task.id)
                by_node.setdefault(task.node_id, []).append(task)
        for node_id, group in sorted(by_node.items()):
            missing = [task for task in group if not self._ask_one(task, wanted)]
            if missing:
                self._warnings.append(
                    f"{self._hostname(node_id)} is {self._state(node_id)}: logs of {_names(missing)} are missing"
                )

    def _ask_one(self, task: pb.Task, wanted: Wanted) -> bool:
        source = self._broker.request(task.node_id, [task.id], wanted)
        if source is None:
            return False
        feed = _Feed(task, source, self._clock.now())
        feed.pump = asyncio.create_task(self._pump(feed))
        self._feeds.append(feed)
        return True

    def _changed(self, changes: Sequence[Change], revision: int) -> None:
        """What is followed starts, ends, or goes."""
        target = self._target.id
        new = [cast("pb.Task", c.new) for c in changes if c.kind == "task" and c.new is not None]
        self._ask([t for t in new if target in (t.service_id, t.id)], Wanted(tail=-1, since=0.0, follow=True))
        if self._warnings or any(c.id == target for c in changes):
            self._news.set()

    async def _pump(self, feed: _Feed) -> None:
        while (batch := await feed.source.next()) is not None:
            if not batch.lines:
                continue
            feed.lines.extend(batch.lines)
            feed.arrived_at = self._clock.now()
            feed.drained.clear()
            self._news.set()
            await feed.drained.wait()
        feed.is_done = True
        self._news.set()

    def _merge(self) -> list[wire.LogLine]:
        """The next lines in order; none while an older one may still come."""
        self._bury()
        now = self._clock.now()
        lines: list[wire.LogLine] = []
        patience = self._waits_until() <= now
        heads = [(feed.lines[0].at, index) for index, feed in enumerate(self._feeds) if feed.lines]
        if len(heads) < len(self._feeds) and not patience:
            return []
        heapq.heapify(heads)
        while heads and len(lines) < MOST_LINES:
            _, index = heapq.heappop(heads)
            feed = self._feeds[index]
            lines.append(feed.lines.popleft())
            if feed.lines:
                heapq.heappush(heads, (feed.lines[0].at, index))
                continue
            feed.drained.set()
            if not feed.is_done and not patience:
                break
        return lines

    def _bury(self) -> None:
        """Takes out feeds that are done; says once per host what is not whole."""
        broken: dict[tuple[str, str], list[pb.Task]] = {}
        for feed in [f for f in self._feeds if f.is_done and not f.lines]:
            self._feeds.remove(feed)
            self._broker.release(feed.source)
            if feed.source.error:
                broken.setdefault((feed.source.node_id, feed.source.error), []).append(feed.task)
        for (node_id, error), tasks in broken.items():
            self._warnings.append(f"logs of {_names(tasks)} on {self._hostname(node_id)} may be incomplete: {error}")
        late = self._clock.now() - ANSWER_WITHIN
        for feed in self._feeds:
            if not feed.source.is_open and feed.asked_at <= late:
                feed.source.end("the host does not answer")

    def _waits_until(self) -> float:
        """Until then, lines that are here wait for tasks that have sent none."""
        hold = HOLD_FOLLOWED if self._wanted.follow else HOLD
        arrived = [feed.arrived_at for feed in self._feeds if feed.lines]
        if not arrived:
            return float("inf")
        silent = [feed for feed in self._feeds if not feed.lines and not feed.is_done]
        ends = [min(arrived) + hold if feed.source.is_open else feed.asked_at + ANSWER_WITHIN for feed in silent]
        return max(ends, default=0.0)

    async def _wait(self) -> None:
        unanswered = [feed.asked_at + ANSWER_WITHIN for feed in self._feeds if not feed.source.is_open]
        until = min([self._waits_until(), *unanswered])
        news = asyncio.ensure_future(self._news.wait())
        timers = []
        if until != float("inf"):
            timers.append(asyncio.ensure_future(self._clock.sleep(max(0.001, until - self._clock.now()))))
        try:
            await asyncio.wait([news, *timers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in (news, *timers):
                waiter.cancel()

    def _response(self, lines: list[wire.LogLine]) -> control.LogsResponse:
        warnings, self._warnings = self._warnings, []
        response = control.LogsResponse(lines=lines, warnings=warnings)
        for task_id in dict.fromkeys(line.task_id for line in lines):
            task = self._world.tasks.get(task_id)
            if task_id not in self._introduced and task is not None:
                response.sources.add(
                    task_id=task_id, task_name=display_name(task), hostname=self._hostname(task.node_id)
                )
            self._introduced.add(task_id)
        return response

    def _hostname(self, node_id: str) -> str:
        node = self._world.nodes.get(node_id)
        return node.description.hostname if node is not None and node.description.hostname else node_id

    def _state(self, node_id: str) -> str:
        node = self._world.nodes.get(node_id)
        if node is None:
            return "no longer part of the cluster"
        return "down" if node.state == pb.NODE_STATE_DOWN else "not connected"


def _may_have_printed(task: pb.Task) -> bool:
    """Its container was made. Asking earlier would be answered at once, by nothing."""
    return task.status.state >= pb.TASK_STATE_STARTING and task.status.state != pb.TASK_STATE_REJECTED


def _names(tasks: Iterable[pb.Task]) -> str:
    return ", ".join(sorted({display_name(task) for task in tasks}))


def no_leader() -> StoreUnavailable:
    return StoreUnavailable("No manager leads at the moment, and logs come by way of the leader: try again.")
