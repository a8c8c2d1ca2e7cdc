"""Faults of what keeps an exclusive slot to one writer: who permits what, until when, and who waits for it."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from tests.simulation.faults.loops import Proxy
from tests.simulation.faults.planted import LATE, fault, replace

from pyswarm_agent.exclusive import Exclusive
from pyswarm_agent.tasks import machine, successor
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager import term as leader_term
from pyswarm_manager.dispatcher import term
from pyswarm_manager.orchestrator import settle


@fault("exclusive")
def a_leader_that_is_not_certain_gives_permits() -> None:
    def make(before: Any) -> Any:
        def init(self: Any, leadership: Any, *given: Any, **options: Any) -> None:
            before(self, leadership, *given, **options)
            self.dispatcher._is_certain = lambda: not leadership.lost.is_set()

        return init

    replace(leader_term.LeaderTerm, "__init__", make)


@fault("exclusive")
def a_node_that_is_down_gets_permits() -> None:
    def make(before: Any) -> Any:
        def may_permit(self: Any, session: Any) -> bool:
            return self._sessions.get(session.node_id) is session and self._is_certain()

        return may_permit

    replace(term.Term, "may_permit", make)


@fault("exclusive")
def a_permit_counts_from_the_answer() -> None:
    replace(Exclusive, "renewed", lambda before: lambda self, sent_at: before(self, max(sent_at, self._clock())))


@fault("exclusive")
def a_permit_is_taken_for_over_when_its_node_is_down() -> None:
    def make(before: Any) -> Any:
        def init(self: Any, *given: Any, **options: Any) -> None:
            before(self, *given, **options)
            timing = self.dispatcher._timing
            limits = with_fields(timing.limits, permit_over_after=timing.limits.down_after)
            self.dispatcher._timing = with_fields(timing, limits=limits)

        return init

    replace(leader_term.LeaderTerm, "__init__", make)


@fault("exclusive")
def a_node_returns_before_its_exclusive_tasks_are_over() -> None:
    replace(
        term,
        "judge",
        lambda before: lambda node, facts, *more: before(node, with_fields(facts, has_exclusive=False), *more),
    )


@fault("exclusive")
def a_start_after_a_restart_is_not_guarded() -> None:
    """The permit that an earlier agent was given is there: the fuse is taken for lit, too."""

    def make(before: Any) -> Any:
        async def guard(self: Any, task_id: str) -> None:
            if not (self._permit is self._found and self._permit.is_valid(self._clock())):
                await before(self, task_id)

        return guard

    def init(before: Any) -> Any:
        def begin(self: Any, *given: Any, **options: Any) -> None:
            before(self, *given, **options)
            self._found = self._permit

        return begin

    replace(Exclusive, "guard", make)
    replace(Exclusive, "__init__", init)


@fault("exclusive")
def a_fuse_that_was_seen_once_is_not_looked_for_again() -> None:
    class Remembering(Proxy):
        def is_armed(self, task_id: str) -> bool:
            seen: set[str] = self.__dict__.setdefault("seen", set())
            if self._inner.is_armed(task_id):
                seen.add(task_id)
            return task_id in seen

    def make(before: Any) -> Any:
        def init(self: Any, fuses: Any, *given: Any, **options: Any) -> None:
            before(self, Remembering(fuses), *given, **options)

        return init

    replace(Exclusive, "__init__", make)


@fault("exclusive")
def an_end_is_told_before_nothing_is_left() -> None:
    """Of a task that is stopped because its permit is over: when it has its signal."""

    def make(before: Any) -> Any:
        def stop(life: Any, todo: Any, now: float) -> Any:
            life, todo = before(life, todo, now)
            if life.task.spec.exclusive and life.failure:
                life = life.says(now, pb.TASK_STATE_FAILED, error=life.failure)
            return life, todo

        return stop

    replace(machine, "_stop", make)


@fault("exclusive")
def a_host_without_managers_fills_exclusive_slots() -> None:
    def make(before: Any) -> Any:
        def plan(lives: Any, *more: Any) -> Any:
            freed = {}
            for task_id, life in lives.items():
                task = pb.Task()
                task.CopyFrom(life.task)
                task.spec.exclusive = False
                freed[task_id] = with_fields(life, task=task)
            return before(freed, *more)

        return plan

    replace(successor, "plan", make, lambda lives, *_: len(lives) >= 6)


@fault("exclusive")
def an_update_does_not_stop_the_old_one_first() -> None:
    replace(settle, "excludes", lambda before: lambda task, successor: False, lambda task, _: task.version > LATE)
