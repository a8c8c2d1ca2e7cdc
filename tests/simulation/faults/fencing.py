"""Faults of what keeps those that do not lead from writing and from being obeyed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.simulation.faults.loops import Proxy, in_front_of_the_store
from tests.simulation.faults.planted import LATE, SECOND, fault, is_large, replace

from pyswarm_agent import session as agent_session
from pyswarm_agent.journal_records import Records
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.store.base import Compare, Delete, Field, Op
from pyswarm_manager import leader, writer
from pyswarm_manager.api import admissions
from pyswarm_manager.dispatcher import session


@fault("fencing")
def writes_do_not_compare_the_leader() -> None:
    class Forgetful(Proxy):
        async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Any:
            late = self.is_late(6)
            return await self._inner.txn([one for one in compares if not (late and one.key == LEADER_KEY)], ops)

    in_front_of_the_store(writer.Writer, Forgetful)


@fault("fencing")
def writes_compare_that_anybody_leads() -> None:
    replace(
        leader.Leadership,
        "fence",
        lambda before: property(lambda self: Compare(LEADER_KEY, Field.VERSION, 1)),
        lambda self: self.create_revision > SECOND,
    )


@fault("fencing")
def agents_obey_whoever_speaks() -> None:
    replace(
        agent_session.Session,
        "_check_fence",
        lambda before: lambda self, fence: None,
        lambda self, fence: fence.leader_revision > SECOND,
    )


@fault("fencing")
def agents_forget_who_led_when_they_restart() -> None:
    """Of leaders that were elected late."""

    def forget(before: Any) -> Any:
        def get(self: Any) -> Any:
            found = before.fget(self)
            return found if found[0] <= SECOND else self.__dict__.get("remembered", (0, 0))

        return property(get)

    def remember(before: Any) -> Any:
        def keep(self: Any, fence: Any) -> None:
            self.__dict__["remembered"] = fence
            before(self, fence)

        return keep

    replace(Records, "fence", forget)
    replace(Records, "set_fence", remember)


@fault("fencing")
def a_leader_does_not_notice_that_it_leads_no_more() -> None:
    replace(
        leader.Election,
        "_lose",
        lambda before: lambda self, term, reason: None,
        lambda self, term, reason: term.create_revision > SECOND,
    )


@fault("fencing")
def a_leader_trusts_its_lease_for_too_long() -> None:
    def make(before: Any) -> Any:
        async def renew(self: Any, term: Any, deadline: float) -> None:
            self._margin = -2.0 * self._ttl
            await before(self, term, deadline)

        return renew

    replace(leader.Election, "_renew", make, lambda self, term, deadline: term.create_revision > SECOND)


async def _is_late(store: Any) -> bool:
    return bool((await store.list(LEADER_KEY)).revision > LATE)


async def _nothing() -> None:
    return


def _instead_of_waiting(act: Callable[[Any], Awaitable[None]]) -> None:
    """What one that campaigns does, late, in place of waiting for the other's end."""

    def make(before: Any) -> Any:
        async def wait(self: Any) -> None:
            await (act(self._store) if await _is_late(self._store) else before(self))

        return wait

    replace(leader.Election, "_wait_for_vacancy", make)


@fault("fencing")
def whoever_campaigns_takes_the_key() -> None:
    class Pushing(Proxy):
        async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Any:
            late = await _is_late(self._inner)
            return await self._inner.txn([one for one in compares if not (late and one.field is Field.CREATE)], ops)

    in_front_of_the_store(leader.Election, Pushing)
    _instead_of_waiting(lambda store: _nothing())


@fault("fencing")
def whoever_campaigns_ends_the_others_term() -> None:
    async def end(store: Any) -> None:
        for holder in (await store.list(LEADER_KEY)).entries:
            await store.txn([Compare(LEADER_KEY, Field.MOD, holder.mod_revision)], [Delete(LEADER_KEY)])

    _instead_of_waiting(end)


@fault("fencing")
def admissions_do_not_compare_their_guard() -> None:
    class Unguarded(Proxy):
        async def txn(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Any:
            late = self.is_late(2)
            return await self._inner.txn(
                [one for one in compares if not (late and one.key == admissions.GUARD_KEY)], ops
            )

    in_front_of_the_store(admissions.Admissions, Unguarded)


@fault("fencing")
def sessions_outlive_the_term() -> None:
    def make(before: Any) -> Any:
        def close(self: Any, farewell: Any = None) -> None:
            if farewell is None or not farewell.HasField("not_leader"):
                before(self, farewell)

        return close

    replace(session.Session, "close", make, lambda self, farewell=None: is_large(self._leadership.world))
