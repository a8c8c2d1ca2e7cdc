"""Fuses of exclusive containers: processes of a host that outlive its agent. How long they wait is the production's."""

from __future__ import annotations

import asyncio

from tests.simulation.facades import Facade
from tests.simulation.host import Container, Host
from tests.simulation.virtual import Party

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.permit import KILL_AFTER, Permit
from pyswarm_agent.runtime import fuse


class Fuse:
    """Burns beside one container until that ends, or is killed by it; or until the host loses its power."""

    def __init__(self, host: Host, container: Container, until: float) -> None:
        """`until`: of the permit, as it is written down, in the host's seconds since boot."""
        self._host = host
        self._task_id = container.request.task_id
        self._container = container
        self.party = Party(f"fuse of {self._task_id}", host.clock)
        host.fuses[self._task_id] = self
        self._waits = fuse.waits(asyncio.get_running_loop().time, host.read_permit, until)
        container.ended().add_done_callback(lambda ended: self.kill(), context=self.party.context)
        self.party.context.run(self._wait)

    def kill(self) -> None:
        self.party.kill()
        if self._host.fuses.get(self._task_id) is self:
            del self._host.fuses[self._task_id]

    def _wait(self) -> None:
        """Woken by a timer alone: a task that waits would cost the simulation three times as much."""
        seconds = next(self._waits, None)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._wait)
        else:
            self._host.burn(self._container)
            self.kill()


class Fuses(Facade):
    """An `exclusive.Fuses`: what one life of an agent does with them."""

    def permit(self) -> Permit:
        until = self._host.read_permit(0.0)
        return Permit(until - KILL_AFTER) if until else Permit()

    def extend(self, permit: Permit) -> None:
        self._party.check()
        self._host.write_permit(permit.burns_at)

    def is_armed(self, task_id: str) -> bool:
        return task_id in self._host.fuses

    async def arm(self, task_id: str) -> None:
        await self._work(0.02, 0.1)
        host = self._host
        container = host.containers.get(task_id)
        if container is None:
            raise ContainerFailure("the container is gone: it cannot be started", final=False)
        if task_id in host.fuses:
            return
        until = host.read_permit(0.0)
        if container.exit is None and until > host.boot_time():
            Fuse(host, container, until)
            return
        host.burn(container)
        raise ContainerFailure("its permit was over, or its fuse could not be armed", final=False)
