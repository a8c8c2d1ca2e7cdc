"""Faults of the way into the balancers and out of them."""

from __future__ import annotations

from dataclasses import replace as with_fields
from typing import Any

from tests.simulation.faults.planted import fault, is_large, is_late, is_second, replace

from pyswarm_agent.applier import Applier
from pyswarm_agent.network import derive as agent_derive
from pyswarm_agent.tasks.life import Life
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher import session, term
from pyswarm_manager.drain import stages
from pyswarm_manager.endpoints import derive
from pyswarm_manager.tasks import is_healthy


@fault("drain")
def a_task_is_released_at_once() -> None:
    def make(before: Any) -> Any:
        def next_of(world: Any, task: Any, confirmed: Any, now: float) -> Any:
            return before(world, task, with_fields(confirmed, live=float("inf")) if task.leaving else confirmed, now)

        return next_of

    replace(stages, "_next", make, is_large)


@fault("drain")
def only_the_owner_is_waited_for() -> None:
    known: list[Any] = [None]

    def remember(before: Any) -> Any:
        def confirmed(world: Any, acks: Any) -> Any:
            known[0] = acks
            return before(world, acks)

        return confirmed

    def owner(before: Any) -> Any:
        def next_of(world: Any, task: Any, confirmed: Any, now: float) -> Any:
            return before(world, task, with_fields(confirmed, live=known[0].applied(task.node_id)), now)

        return next_of

    replace(stages, "_confirmed", remember)
    replace(stages, "_next", owner, is_large)


@fault("drain")
def the_fastest_node_is_enough() -> None:
    def make(before: Any) -> Any:
        def confirmed(world: Any, acks: Any) -> Any:
            fastest = max((acks.applied(node_id) for node_id in world.nodes), default=0)
            return with_fields(before(world, acks), live=fastest)

        return confirmed

    replace(stages, "_confirmed", make, is_large)


@fault("drain")
def addresses_are_free_before_nodes_that_are_down_have_confirmed() -> None:
    def make(before: Any) -> Any:
        def confirmed(world: Any, acks: Any) -> Any:
            found = before(world, acks)
            return with_fields(found, every=found.live)

        return confirmed

    replace(stages, "_confirmed", make, is_large)


@fault("drain")
def a_redirect_ends_too_soon() -> None:
    def make(before: Any) -> Any:
        def endpoints(self: Any) -> Any:
            update = before(self)
            if update is not None:
                leaving = {t.id for t in self._leadership.world.tasks_of_node(self.node_id) if t.released}
                update.settled_tasks.extend(sorted(leaving.difference(update.settled_tasks)))
            return update

        return endpoints

    replace(session.Session, "_endpoints", make, lambda self: is_large(self._leadership.world))


@fault("drain")
def an_update_counts_as_confirmed_when_it_is_sent() -> None:
    def make(before: Any) -> Any:
        def endpoints(self: Any) -> Any:
            update = before(self)
            if update is not None:
                self._leadership.confirmed(self, update.revision)
            return update

        return endpoints

    replace(session.Session, "_endpoints", make)


def _endpoints_by(rule: Any, where: Any = lambda task, node: is_late(node)) -> None:
    replace(derive, "is_endpoint", lambda before: rule, where)


@fault("drain")
def a_task_that_leaves_stays_an_endpoint() -> None:
    _endpoints_by(lambda task, node: is_healthy(task) and node is not None and node.state != pb.NODE_STATE_DOWN)


@fault("drain")
def an_unhealthy_task_stays_an_endpoint() -> None:
    _endpoints_by(
        lambda task, node: (
            task.status.state == pb.TASK_STATE_RUNNING
            and not task.leaving
            and node is not None
            and node.state != pb.NODE_STATE_DOWN
        ),
        lambda task, node: bool(task.predecessor_id),
    )


@fault("drain")
def a_task_on_a_node_that_is_down_stays_an_endpoint() -> None:
    _endpoints_by(lambda task, node: is_healthy(task) and not task.leaving and node is not None)


@fault("drain")
def a_host_confirms_before_its_kernel_has_it() -> None:
    def make(before: Any) -> Any:
        async def apply_once(self: Any) -> bool:
            if self._mark is not None and self._mark != self._told:
                self._told = self._mark
                self._applied(self._mark)
            return bool(await before(self))

        return apply_once

    replace(Applier, "_apply_once", make, lambda self: self._mark is not None and self._mark.session >= 3)


@fault("drain")
def a_task_is_stopped_before_it_is_released() -> None:
    replace(Life, "may_stop", lambda before: property(lambda self: self.unwanted), is_second)


@fault("drain")
def a_task_counts_before_it_is_balanced() -> None:
    replace(
        stages._Confirmed, "has_served", lambda before: lambda self, version: True, lambda self, version: version > 200
    )


@fault("drain")
def open_connections_are_not_waited_for() -> None:
    replace(Life, "drain_timeout", lambda before: property(lambda self: 0.0), is_second)


@fault("drain")
def a_node_that_returns_serves_at_once() -> None:
    def make(before: Any) -> Any:
        def judge(node: Any, facts: Any, *more: Any) -> Any:
            return before(node, with_fields(facts, caught_up=facts.hello is not None, unapplied_since=None), *more)

        return judge

    replace(term, "judge", make, is_late)


@fault("drain")
def nobody_is_asked_to_confirm() -> None:
    replace(
        term.Term,
        "_await_confirmations",
        lambda before: lambda self, task: None,
        lambda self, task: is_large(self.world),
    )


@fault("drain")
def an_owner_does_not_redirect() -> None:
    replace(agent_derive, "_redirects", lambda before: lambda *given: (), lambda inputs, *_: len(inputs.nodes) >= 5)
