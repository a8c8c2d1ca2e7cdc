"""Keeps up the discovery keys (see `discovery`), on the leader: they follow the world a moment later, in few writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from pyswarm_core.errors import Deposed, PyswarmError
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import MAX_TXN_OPS, Compare, Delete, Op, Put, Store
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.clock import Clock
from pyswarm_manager.discovery import SERVICES_PREFIX, service_key, service_value
from pyswarm_manager.endpoints.derive import derive
from pyswarm_manager.loops import LiveWorld
from pyswarm_manager.world import Change

log = get_logger("manager.announce")

# Outsiders are not waited for, so a burst of changes may be one write.
PACE = 0.25  # seconds
RETRY = 2.0


class Announcer:
    """`fence`: the leadership's."""

    def __init__(self, world: LiveWorld, store: Store, fence: Compare, clock: Clock) -> None:
        self._world = world
        self._store = store
        self._fence = fence
        self._clock = clock
        self._stored: dict[str, bytes] | None = None  # key → value; None: not known
        self._key_of: dict[str, str] = {}  # service id → its key
        self._due: set[str] = set()  # service ids
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled or Deposed."""
        cancel = self._world.subscribe(self._look)
        self._changed.set()
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._bring_up()
                except Deposed:
                    raise
                except PyswarmError as error:
                    log.warning("the discovery keys are not up to date", error=error)
                    self._stored = None
                    self._changed.set()
                    await self._clock.sleep(RETRY)
                await self._clock.sleep(PACE)
        finally:
            cancel()

    def _look(self, changes: Sequence[Change], revision: int) -> None:
        before = len(self._due)
        for change in changes:
            self._due |= _services(change, self._world)
        if len(self._due) > before:
            self._changed.set()

    async def _bring_up(self) -> None:
        due, self._due = self._due, set()
        stale: set[str] = set()
        if self._stored is None:
            listing = await self._store.list(SERVICES_PREFIX)
            self._stored = {entry.key: entry.value for entry in listing.entries}
            due = set(self._world.services)
            stale = set(self._stored)
        wanted: dict[str, bytes] = {}
        for service_id in sorted(due):
            service = self._world.services.get(service_id)
            if service is None or service.removing:
                stale.add(self._key_of.pop(service_id, ""))
                continue
            key = self._key_of[service_id] = service_key(service.spec.name)
            endpoints = derive(self._world, service_id, self._clock.now(), None)
            wanted[key] = service_value(self._world, service, endpoints)
        ops: list[Op] = [Put(key, value) for key, value in wanted.items() if self._stored.get(key) != value]
        ops += [Delete(key) for key in sorted(stale) if key in self._stored and key not in wanted]
        for start in range(0, len(ops), MAX_TXN_OPS - 1):
            await self._write(ops[start : start + MAX_TXN_OPS - 1], self._stored)

    async def _write(self, ops: Sequence[Op], stored: dict[str, bytes]) -> None:
        result = await self._store.txn([self._fence], ops)
        if not result.succeeded:
            raise Deposed(f"the key {LEADER_KEY} is another's by now")
        for op in ops:
            if isinstance(op, Put):
                stored[op.key] = op.value
            else:
                stored.pop(op.key, None)


def _services(change: Change, world: LiveWorld) -> set[str]:
    """Whose values the change may have changed. A task that was not and is not running is no endpoint."""
    match change.kind:
        case "service":
            return {change.id}
        case "task":
            tasks = [cast("pb.Task", task) for task in (change.old, change.new) if task is not None]
            return {task.service_id for task in tasks if task.status.state == pb.TASK_STATE_RUNNING}
        case "node":
            return {task.service_id for task in world.tasks_of_node(change.id)}
        case _:
            return set()
