"""Who has which address on this host. A task's address is given on when it ended; its link may still be there then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class AddressGuard:
    def __init__(self) -> None:
        self._holders: dict[str, str] = {}
        self._changed = asyncio.Condition()

    def note(self, task_id: str, addresses: Iterable[str]) -> None:
        """It has them already: found after a restart."""
        self._holders.update(dict.fromkeys(addresses, task_id))

    async def take(self, task_id: str, addresses: Iterable[str], timeout: float) -> None:
        """Waits until no other task has any of them. Raises TimeoutError."""
        wanted = list(addresses)
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: all(self._holders.get(a, task_id) == task_id for a in wanted))
            self.note(task_id, wanted)

    async def give_up(self, task_id: str) -> None:
        async with self._changed:
            self._holders = {a: holder for a, holder in self._holders.items() if holder != task_id}
            self._changed.notify_all()
