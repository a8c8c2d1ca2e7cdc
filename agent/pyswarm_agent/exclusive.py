"""Looks after exclusive tasks: none starts without a permit and a fuse, and all are stopped when the permit is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.permit import PERIOD, Permit, boot_time
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.log import get_logger

log = get_logger("agent.exclusive")

LOOK = 0.5  # seconds between two looks at the permit
PERMIT_WITHIN = 10.0  # seconds that a task waits for one before its start counts as failed
_MAY_RUN = range(Phase.STARTING, Phase.CLEANING)


class Fuses(Protocol):
    """`runtime.fuses.Fuses` is the real one, and says more."""

    def permit(self) -> Permit: ...
    def extend(self, permit: Permit) -> None: ...
    def is_armed(self, task_id: str) -> bool: ...
    async def arm(self, task_id: str) -> None: ...


class Exclusive:
    """`lives` and `feed`: of the tasks on this host. `clock`: seconds since boot."""

    def __init__(
        self,
        fuses: Fuses,
        lives: Callable[[], Mapping[str, Life]],
        feed: Callable[[str, ev.Event], None],
        clock: Callable[[], float] = boot_time,
        *,
        look_every: float = LOOK,
        permit_within: float = PERMIT_WITHIN,
    ) -> None:
        self._fuses = fuses
        self._lives = lives
        self._feed = feed
        self._clock = clock
        self._look_every = look_every
        self._permit_within = permit_within
        found = fuses.permit()
        # One that is over tells nothing; one of another boot may be of a later time than all that follow.
        self._permit = found if found.is_valid(clock()) else Permit()
        self._renewed = asyncio.Event()
        self._any = asyncio.Event()  # such a task may run here

    # ---- for the session ----

    def period(self) -> float:
        """The longest time between two heartbeats, in seconds."""
        here = any(life.task.spec.exclusive and not life.is_over for life in self._lives().values())
        return PERIOD if here else 3600.0

    def renewed(self, sent_at: float) -> None:
        permit = self._permit.renewed(sent_at)
        if permit is self._permit:
            return
        self._permit = permit
        try:
            self._fuses.extend(permit)
        except OSError as error:  # the fuses burn then, as they must: they cannot know
            log.error("the permit cannot be written down", error=error)
        self._renewed.set()

    # ---- for the tasks ----

    def changed(self, life: Life) -> None:
        """Of every new life of every task."""
        if life.task.spec.exclusive and life.phase in _MAY_RUN:
            self._any.set()

    async def guard(self, task_id: str) -> None:
        """Before its container is started. ContainerFailure."""
        try:
            async with asyncio.timeout(self._permit_within):
                while not self._permit.is_valid(self._clock()):
                    self._renewed.clear()
                    await self._renewed.wait()
        except TimeoutError:
            raise ContainerFailure("no leader lets this host run exclusive tasks", final=False) from None
        await self._fuses.arm(task_id)

    # ---- by itself ----

    async def run(self) -> None:
        """Until cancelled. Looks only while there is something to look at."""
        while True:
            await self._any.wait()
            await asyncio.sleep(self._look_every)
            await self.look()

    async def look(self) -> None:
        running = [i for i, life in self._lives().items() if life.task.spec.exclusive and life.phase in _MAY_RUN]
        if not running:
            self._any.clear()
        for task_id in running:
            if not self._permit.is_valid(self._clock()):
                self._feed(task_id, ev.Lapsed())
            elif not self._fuses.is_armed(task_id):
                await self._arm_again(task_id)

    async def _arm_again(self, task_id: str) -> None:
        life = self._lives().get(task_id)
        if life is None or life.phase not in _MAY_RUN or life.phase is Phase.STARTING:
            return  # it is just being armed
        log.warning("the fuse of an exclusive task is gone, making another", task=task_id)
        try:
            await self._fuses.arm(task_id)
        except ContainerFailure as error:
            log.error("an exclusive task without a fuse is stopped", task=task_id, error=error)
            self._feed(task_id, ev.Lapsed())
