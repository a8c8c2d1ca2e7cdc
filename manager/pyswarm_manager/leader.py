"""Who leads: a key that only one manager can create, under a lease that it must keep renewing.

The lease alone is never trusted (etcd 3.4 may renew one that is gone, and a paused process believes anything): what
counts is the key's create_revision. Whoever leads compares it in each write; so even a leader that has not noticed yet
that it was deposed cannot write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from pyswarm_core.errors import Compacted, OutcomeUnknown, PyswarmError
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Compare, Delete, EventKind, Field, Put, Store
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("manager.leader")

TTL = 5  # seconds; etcd takes no less than 2
_RETRY = 0.5  # seconds


def boot_time() -> float:
    """Monotonic seconds that also count while the machine sleeps, during which leases run out."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True, eq=False)
class Leadership:
    """One term. `lost` is set, once and for ever, when it may have ended: stop everything that only a leader does.

    That takes the event loop's attention, which a process that was frozen gives to other things first: what must not
    be said under a term that is over asks `is_certain`."""

    create_revision: int
    lease: int
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    certain_until: float = 0.0  # by the election's clock: until then nobody else can lead

    def is_certain(self, now: float) -> bool:
        return not self.lost.is_set() and now < self.certain_until

    @property
    def fence(self) -> Compare:
        """Part of each write of the leader's loops."""
        return Compare(LEADER_KEY, Field.CREATE, self.create_revision)


class Election:
    """`campaign`, work until `lost`, `campaign` again; `resign` at the end.

    A term counts as lost when the store has not confirmed it for `ttl - margin` seconds by `clock`, counted from before
    the last confirmed renewal was asked for: that is before the store can let the lease run out.
    """

    def __init__(
        self,
        store: Store,
        leader: pb.Leader,
        *,
        ttl: int = TTL,
        margin: float = 1.0,
        clock: Callable[[], float] = boot_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 0 < margin < ttl:
            raise ValueError(f"a margin of {margin} s in a lease of {ttl} s: it must be more than 0 and less than that")
        self._store = store
        self._leader = leader
        self._ttl = ttl
        self._margin = margin
        self._clock = clock
        self._sleep = sleep
        self._term: Leadership | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def campaign(self) -> Leadership:
        """Returns when this manager leads; outages of the store only delay it."""
        if self._term and not self._term.lost.is_set():
            raise RuntimeError("this manager leads already")
        await self._stop_tasks()
        while True:
            try:
                await self._wait_for_vacancy()
                asked_at = self._clock()
                term = await self._stand()
            except Compacted:
                continue
            except PyswarmError as error:
                if not error.retryable and not isinstance(error, OutcomeUnknown):
                    raise
                log.info("cannot campaign now", error=error)
                await self._sleep(_RETRY)
                continue
            if term:
                log.info("elected", create_revision=term.create_revision, manager=self._leader.manager_id)
                self._term = term
                term.certain_until = asked_at + self._ttl - self._margin
                self._look_after(term, asked_at + self._ttl - self._margin)
                return term

    async def resign(self) -> None:
        """Lets another manager lead at once instead of after the lease's time. Does not raise when etcd is away."""
        term, self._term = self._term, None
        await self._stop_tasks()
        if term is None:
            return
        term.lost.set()
        await self._give_back(term.lease)
        log.info("resigned", create_revision=term.create_revision)

    async def _wait_for_vacancy(self) -> None:
        listing = await self._store.list(LEADER_KEY)
        holder = next((entry for entry in listing.entries if entry.key == LEADER_KEY), None)
        if holder is None:
            return
        if pb.Leader.FromString(holder.value).manager_id == self._leader.manager_id:
            # An earlier incarnation of this manager, which we are proof that it is gone (or else it is deposed now):
            # no need to wait for its lease.
            log.info("ending the term of an earlier incarnation", create_revision=holder.create_revision)
            await self._store.txn([Compare(LEADER_KEY, Field.MOD, holder.mod_revision)], [Delete(LEADER_KEY)])
            return
        watch = self._store.watch(LEADER_KEY, from_revision=listing.revision + 1)
        async with aclosing(watch):
            async for batch in watch:
                if any(e.entry.key == LEADER_KEY and e.kind is EventKind.DELETE for e in batch.events):
                    return

    async def _stand(self) -> Leadership | None:
        lease = await self._store.grant(self._ttl)
        won: int | None = None
        try:
            value = self._leader.SerializeToString(deterministic=True)
            try:
                result = await self._store.txn([Compare(LEADER_KEY, Field.CREATE, 0)], [Put(LEADER_KEY, value, lease)])
                won = result.revision if result.succeeded else None
            except OutcomeUnknown:
                # Only our write can have put the key under our lease.
                entry = await self._store.get(LEADER_KEY)
                won = entry.create_revision if entry and entry.lease == lease else None
        finally:
            if won is None:
                await self._give_back(lease)  # and with it the key, should an unknown write still arrive
        return Leadership(won, lease) if won is not None else None

    async def _give_back(self, lease: int) -> None:
        try:
            await self._store.revoke(lease)
        except PyswarmError as error:
            log.info("cannot revoke the lease, it runs out by itself", error=error)

    def _look_after(self, term: Leadership, deadline: float) -> None:
        self._tasks = [asyncio.create_task(self._renew(term, deadline)), asyncio.create_task(self._follow(term))]
        for task in self._tasks:
            task.add_done_callback(lambda task: self._ended(term, task))

    def _ended(self, term: Leadership, task: asyncio.Task[None]) -> None:
        """A term that nobody looks after is no term."""
        if not task.cancelled() and (error := task.exception()):
            log.error("cannot look after the term", error=error)
            self._lose(term, "an error of this program")

    async def _renew(self, term: Leadership, deadline: float) -> None:
        while not term.lost.is_set():
            asked_at = self._clock()
            renewal = asyncio.ensure_future(self._confirm(term))
            timer = asyncio.ensure_future(self._sleep(max(deadline - asked_at, 0)))
            try:
                await asyncio.wait({renewal, timer}, return_when=asyncio.FIRST_COMPLETED)
                confirmed = renewal.result() if renewal.done() else False
            finally:
                renewal.cancel()
                timer.cancel()
            if confirmed:
                deadline = term.certain_until = asked_at + self._ttl - self._margin
            # Also after a confirmation: this process may have been frozen between the answer and now.
            remaining = deadline - self._clock()
            if remaining <= 0:
                self._lose(term, "the store has not confirmed the term in time")
                return
            await self._sleep(min((self._ttl - self._margin) / 3, remaining) if confirmed else min(0.2, remaining))

    async def _confirm(self, term: Leadership) -> bool:
        """Renews the lease and looks at the key; False if that cannot be told now. Sets `lost` if it is not ours."""
        try:
            left = await self._store.keep_alive(term.lease)
            entry = await self._store.get(LEADER_KEY)
        except PyswarmError as error:
            log.warning("cannot renew the term", error=error)
            return False
        if left <= 0 or entry is None or entry.create_revision != term.create_revision:
            self._lose(term, "the lease has run out or the key is another's")
            return False
        return True

    async def _follow(self, term: Leadership) -> None:
        revision = term.create_revision + 1
        while not term.lost.is_set():
            try:
                watch = self._store.watch(LEADER_KEY, from_revision=revision)
                async with aclosing(watch):
                    async for batch in watch:
                        revision = batch.revision + 1
                        for event in batch.events:
                            entry = event.entry
                            if entry.key == LEADER_KEY and entry.create_revision != term.create_revision:
                                self._lose(term, "the key was deleted")
                                return
            except Compacted as error:
                revision = error.compact_revision + 1  # what happened until then, _confirm sees
            except PyswarmError as error:
                log.warning("cannot watch the leader's key", error=error)
            await self._sleep(_RETRY)

    def _lose(self, term: Leadership, reason: str) -> None:
        if not term.lost.is_set():
            log.warning("leadership lost", reason=reason, create_revision=term.create_revision)
            term.lost.set()

    async def _stop_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
