"""A supervisor with its journal on a host made of Python, which tests start, kill and start again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.unit.agent.fakes import FakeHost, ReadyAtOnce, until

from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import Records
from pyswarm_agent.tasks.life import Life
from pyswarm_agent.tasks.request import Here
from pyswarm_agent.tasks.supervisor import Supervisor
from pyswarm_agent.tasks.tools import Slots, Tools
from pyswarm_core.v1 import objects_pb2 as pb

NONE: frozenset[str] = frozenset()


class Agent:
    """A supervisor with its journal; `kill` leaves it as SIGKILL would, and `Agent(host, path)` is its next start."""

    def __init__(self, host: FakeHost, path: Path) -> None:
        self.host = host
        self.set_back = 0.0  # seconds by which somebody has set the wall clock back
        self.journal = Journal(path / "journal")
        self.journal.open()
        self.records = Records(self.journal)
        self.reports: dict[str, list[pb.TaskStatus]] = {}
        self.network_changes = 0
        self.auths: dict[str, pb.RegistryAuth] = {}
        self.supervisor = Supervisor(
            Tools(
                runtime=host.runtime,
                images=host.images,
                links=host.links,
                balancer=host.network,
                ready=ReadyAtOnce(),
                probes=host.probes,
                ports=host.ports,
                logs=host.logs,
                lives=self.records,
                here=Here("n1", "host-1", "169.254.1.1"),
                auth=self.auths.get,
                slots=Slots(asyncio.Semaphore(4), asyncio.Semaphore(4)),
                clock=lambda: time.time() - self.set_back,
                guard=host.fuses.arm,
            ),
            self._report,
            self._network_changed,
        )

    def _report(self, life: Life) -> None:
        self.reports.setdefault(life.id, []).append(life.status)

    def _network_changed(self) -> None:
        self.network_changes += 1

    def assign(self, *tasks: pb.Task, removed: tuple[str, ...] = (), complete: bool = False) -> None:
        self.supervisor.assign(tasks, removed, complete, NONE)

    def state(self, task_id: str = "t1") -> int:
        life = self.supervisor.life(task_id)
        return life.status.state if life is not None else -1

    async def reaches(self, state: int, task_id: str = "t1") -> None:
        await until(lambda: self.state(task_id) == state, what=f"{task_id} in state {state}, is {self.state(task_id)}")

    async def kill(self) -> None:
        """No last words: what runs is dropped where it waits, nothing is flushed."""
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task() and "tasks/" in str(task.get_coro().cr_code.co_filename):  # type: ignore[union-attr]
                task.cancel()
        await asyncio.sleep(0)
        self.journal.close()
