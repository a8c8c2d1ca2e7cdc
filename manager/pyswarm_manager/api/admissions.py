"""What the API writes: decided on a world that has all that was admitted before, and stored if that is still so.

Names, published ports, subnets and VXLAN ids must be unique among objects, which no compare of the objects themselves
can promise: two managers could each admit a service `web`. So every admission also compares, and rewrites, one guard
key. Admissions are thereby in one order, across all managers, and the pure checks hold. Loops do not touch the guard:
they never take a name, port or range.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pyswarm_core import kinds
from pyswarm_core.errors import Conflict, OutcomeUnknown, StoreUnavailable
from pyswarm_core.ids import new_id
from pyswarm_core.store.base import Compare, Delete, Field, Op, Put, Store
from pyswarm_manager import plan
from pyswarm_manager.plan import World, Write

GUARD_KEY = kinds.PREFIX + "guard/admissions"  # under the prefix, so that a cache can be waited for to have seen it

T = TypeVar("T")
Decision = tuple[Iterable[Write], T]

_ATTEMPTS = 20  # conflicts in a row; each means that somebody else succeeded
_UNKNOWN_ATTEMPTS = 3
_CATCH_UP = 5.0  # seconds


class Admissions:
    """`catch_up(revision)` returns when the world holds that revision."""

    def __init__(
        self, store: Store, world: World, catch_up: Callable[[int], Awaitable[None]], rng: random.Random
    ) -> None:
        self._store = store
        self._world = world
        self._catch_up = catch_up
        self._rng = rng

    async def fresh(self) -> None:
        """Returns when the world holds everything that was admitted before this was called, by any manager."""
        entry = await self._store.get(GUARD_KEY)
        if entry is not None:
            await self._wait(entry.mod_revision)

    async def admit(self, decide: Callable[[World], Decision[T]]) -> T:
        """`decide` is pure, and called again when another admission or a loop was faster. What it raises, this raises.

        Returns its second value when its writes are stored and the world shows them. Conflict: too many were faster.
        StoreUnavailable: nothing was stored. OutcomeUnknown: it cannot be told now."""
        for _ in range(_ATTEMPTS):
            entry = await self._store.get(GUARD_KEY)
            guard = entry.mod_revision if entry is not None else 0
            await self._wait(guard)
            writes, result = decide(self._world)
            writes = tuple(writes)
            if not writes:
                return result
            revision = await self._store_all(writes, guard)
            if revision:
                await self._wait(revision)
                return result
            # A loop may have written one of these objects: its write is on its way to the world.
            await asyncio.sleep(0.001 + 0.01 * self._rng.random())
        raise Conflict("The cluster is changing too fast to carry this out: try again.")

    async def _store_all(self, writes: tuple[Write, ...], guard: int) -> int:
        """The revision; 0 when something had changed."""
        nonce = new_id(self._rng)
        compares = [Compare(GUARD_KEY, Field.MOD, guard)]
        ops: list[Op] = [Put(GUARD_KEY, nonce.encode())]
        for write in writes:
            key = kinds.key_of(write.message)
            compares.append(Compare(key, Field.MOD, write.message.version))
            ops.append(Put(key, kinds.encode(write.message)) if isinstance(write, plan.Put) else Delete(key))
        unknown: OutcomeUnknown | None = None
        for _ in range(_UNKNOWN_ATTEMPTS):
            try:
                result = await self._store.txn(compares, ops)
            except OutcomeUnknown as error:
                # Repeating it is safe: the guard lets it happen once.
                unknown = error
                continue
            except StoreUnavailable:
                if unknown is not None:
                    raise unknown from None
                raise
            if result.succeeded:
                return result.revision
            return await self._own_revision(nonce) if unknown is not None else 0
        assert unknown is not None
        raise unknown

    async def _own_revision(self, nonce: str) -> int:
        """An earlier try, whose answer was lost, may be what stands in the way."""
        entry = await self._store.get(GUARD_KEY)
        return entry.mod_revision if entry is not None and entry.value == nonce.encode() else 0

    async def _wait(self, revision: int) -> None:
        try:
            async with asyncio.timeout(_CATCH_UP):
                await self._catch_up(revision)
        except TimeoutError:
            raise StoreUnavailable(
                "This manager's view of the cluster is behind and does not catch up: try again, or another manager."
            ) from None
