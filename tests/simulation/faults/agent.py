"""Faults of the agent: its tasks, its journal, what it tells."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from tests.simulation.faults.planted import SECOND, fault, is_busy, is_second, replace

from pyswarm_agent.app_agent import Agent
from pyswarm_agent.health.threshold import Threshold
from pyswarm_agent.journal_records import Records
from pyswarm_agent.session import Session
from pyswarm_agent.session_view import ManagerView
from pyswarm_agent.tasks import adopt, machine
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.supervisor import Supervisor
from pyswarm_core.v1 import objects_pb2 as pb


@fault("agent")
def a_start_does_not_wait_for_the_disk() -> None:
    async def at_once(self: Any) -> None:
        return

    replace(Records, "sync", lambda before: at_once)


@fault("agent")
def a_restart_removes_what_runs() -> None:
    replace(
        Supervisor,
        "_remove_orphans",
        lambda before: lambda self, found, known: before(self, found, ()),
        lambda self, found, known: len(known) >= 12,
    )


@fault("agent")
def an_increment_is_taken_for_all_there_is() -> None:
    def make(before: Any) -> Any:
        return lambda self, tasks, removed, complete, keep: before(self, tasks, removed, True, keep)

    replace(Supervisor, "assign", make, is_busy)


@fault("agent")
def what_is_missing_in_a_complete_set_is_kept() -> None:
    def make(before: Any) -> Any:
        return lambda self, tasks, removed, complete, keep: before(self, tasks, removed, False, keep)

    replace(Supervisor, "assign", make, is_busy)


@fault("agent")
def an_end_is_not_cleaned_up() -> None:
    def make(before: Any) -> Any:
        def end(*given: Any, **options: Any) -> Any:
            life, todo = before(*given, **options)
            return life, [one for one in todo if not isinstance(one, ev.Clean)]

        return end

    replace(machine, "_end", make, lambda life, *_, **__: is_second(life) and life.task.slot >= 3)


@fault("agent")
def statuses_on_their_way_are_lost_with_the_session() -> None:
    def make(before: Any) -> Any:
        def begin(self: Any, first: Any, address: str) -> None:
            self._box._sent.clear()
            before(self, first, address)

        return begin

    replace(Session, "_begin", make, lambda self, first, _: first is not None and first.fence.leader_revision > SECOND)
    replace(
        Agent,
        "_tell_what_differs",
        lambda before: lambda self, update: None,
        lambda self, _: len(self.tasks.lives()) >= 3,
    )


@fault("agent")
def an_end_while_draining_is_not_noticed() -> None:
    def make(before: Any) -> Any:
        def react(life: Any, event: Any, now: float) -> Any:
            deaf = isinstance(event, ev.Exited) and life.phase is Phase.DRAINING
            return (life, []) if deaf else before(life, event, now)

        return react

    replace(machine, "_react", make, is_second)


@fault("agent")
def a_task_that_falls_ill_is_not_told_of() -> None:
    def make(before: Any) -> Any:
        def after(self: Any, passed: bool, now: float) -> Any:
            threshold, pause = before(self, passed, now)
            if self.health == pb.HEALTH_HEALTHY:
                threshold = with_fields(threshold, health=pb.HEALTH_HEALTHY)
            return threshold, pause

        return after

    replace(Threshold, "after", make, lambda self, passed, now: now - self.started_at > 30)


@fault("agent")
def without_managers_tasks_are_stopped() -> None:
    def make(before: Any) -> Any:
        def fill(self: Any, plan: Any) -> None:
            lost_at = self.session.lost_at
            if lost_at is not None and self._monotonic() - lost_at > 10:
                self.tasks.assign((), list(self.tasks.lives()), False, frozenset())

        return fill

    replace(Agent, "_fill", make, lambda self, plan: is_busy(self.tasks))


@fault("agent")
def a_service_that_is_gone_is_balanced_on() -> None:
    def make(before: Any) -> Any:
        def balanced(self: Any, update: Any) -> None:
            del update.removed_services[:]
            before(self, update)

        return balanced

    replace(ManagerView, "balanced", make)


@fault("agent")
def a_restart_forgets_the_endpoints() -> None:
    """All but four."""

    def make(before: Any) -> Any:
        return lambda self: dict(list(before(self).items())[:4])

    replace(Records, "endpoints", make)


@fault("agent")
def a_task_is_started_while_it_is_to_wait() -> None:
    def make(before: Any) -> Any:
        def steer(life: Any, todo: Any, now: float) -> Any:
            if life.phase is Phase.READY and life.task.desired_state == pb.TASK_STATE_READY:
                task = pb.Task()
                task.CopyFrom(life.task)
                task.desired_state = pb.TASK_STATE_RUNNING
                life = with_fields(life, task=task)
            return before(life, todo, now)

        return steer

    replace(machine, "_steer", make, is_second)


@fault("agent")
def a_container_has_no_grace() -> None:
    replace(Life, "stop_grace", lambda before: property(lambda self: 0.0), is_second)


@fault("agent")
def an_adopted_container_is_not_watched() -> None:
    def make(before: Any) -> Any:
        def running(life: Any, now: float) -> Any:
            after, todo = before(life, now)
            return after, tuple(one for one in todo if not isinstance(one, ev.WatchExit))

        return running

    replace(adopt, "_running", make, is_second)
