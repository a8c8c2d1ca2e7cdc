"""All tasks of this host: brings the manager's words to the runners, and takes up after a restart what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.addresses import AddressGuard
from pyswarm_agent.tasks.adopt import adopt
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.machine import Step, begin
from pyswarm_agent.tasks.runner import TaskRunner
from pyswarm_agent.tasks.tools import Tools
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("agent.tasks")


class Supervisor:
    def __init__(
        self, tools: Tools, report: Callable[[Life], None], network_changed: Callable[[], None] = lambda: None
    ) -> None:
        """`report`: this task's status is to be told. `network_changed`: `network_tasks` or `dead` has changed."""
        self._tools = tools
        self._report = report
        self._network_changed = network_changed
        self._addresses = AddressGuard()
        self._runners: dict[str, TaskRunner] = {}
        self._seen: dict[str, tuple[object, ...]] = {}  # what the network last knew of each task
        self._merged: dict[str, tuple[Life, pb.Task]] = {}
        self._listeners: list[Callable[[Life], None]] = []

    # ---- what others ask ----

    def lives(self) -> Mapping[str, Life]:
        return {task_id: runner.life for task_id, runner in self._runners.items()}

    def life(self, task_id: str) -> Life | None:
        runner = self._runners.get(task_id)
        return runner.life if runner is not None else None

    def images_in_use(self) -> frozenset[str]:
        return frozenset(r.life.image_id for r in self._runners.values() if r.life.phase < Phase.DONE)

    def network_tasks(self) -> dict[str, pb.Task]:
        """With the agent's own status; until the task's address is given up. The same object while nothing changed."""
        found = {}
        for task_id, runner in self._runners.items():
            life = runner.life
            if life.task.addresses_free or life.phase is Phase.FORGOTTEN:
                continue
            known = self._merged.get(task_id)
            if known is None or known[0] is not life:
                task = pb.Task()
                task.CopyFrom(life.task)
                task.status.CopyFrom(life.status)
                known = self._merged[task_id] = (life, task)
            found[task_id] = known[1]
        return found

    def dead(self) -> frozenset[str]:
        return frozenset(task_id for task_id, runner in self._runners.items() if runner.life.died)

    def listen(self, listener: Callable[[Life], None]) -> None:
        """It hears of every new life of every task."""
        self._listeners.append(listener)

    # ---- what happens ----

    async def recover(self, boot_id: str) -> None:
        """Before anything else: the journal's tasks go on from what the host has, and what nobody knows is removed.

        `boot_id`: the kernel's, of this boot. Times do not tell one boot from another: the wall clock may be set."""
        lives = self._tools.lives.lives()
        states = {state.task_id: state for state in await self._tools.runtime.states()}
        links = await self._tools.links.attached()
        for life in lives.values():
            if life.phase in range(Phase.PREPARING, Phase.DONE):
                self._addresses.note(life.id, (a.address for a in life.task.addresses))
        await self._remove_orphans(states.keys() | set(links), lives.keys())
        now = self._tools.clock()
        known = self._tools.lives.boot
        rebooted = known not in ("", boot_id)
        for life in lives.values():
            self._add(adopt(life, states.get(life.id), now, rebooted=rebooted))
        if known != boot_id:
            self._tools.lives.set_boot(boot_id)  # in the journal it comes after what has become of them
        if lives:
            log.info("tasks adopted", tasks=len(lives), running=sum(s.running for s in states.values()))

    async def _remove_orphans(self, found: Iterable[str], known: Iterable[str]) -> None:
        """Each part by itself: what cannot be removed now is tried again at the next start."""
        for task_id in sorted(set(found) - set(known)):
            log.warning("removing what no record tells of", task=task_id)
            for part in (
                self._tools.runtime.delete,
                self._tools.images.unmount,
                self._tools.links.detach,
                self._tools.runtime.forget,
            ):
                try:
                    await part(task_id)
                except Exception as error:
                    log.error("an orphan's part is left", task=task_id, error=error)

    def assign(self, tasks: Iterable[pb.Task], removed: Iterable[str], complete: bool, keep: frozenset[str]) -> None:
        """One update from the manager. `keep`: tasks that a complete set need not have, since no manager has been told
        of them yet."""
        told = set()
        for task in tasks:
            told.add(task.id)
            runner = self._runners.get(task.id)
            if runner is None:
                self._add(begin(task, self._tools.clock()))
            else:
                runner.feed(ev.Ordered(task))
        gone = set(removed)
        if complete:
            gone |= self._runners.keys() - told - keep
        for task_id in gone:
            runner = self._runners.get(task_id)
            if runner is not None:
                runner.feed(ev.Ordered(None, gone=True))

    def add(self, task: pb.Task) -> None:
        """A task that this agent made itself."""
        if task.id not in self._runners:
            self._add(begin(task, self._tools.clock()))

    def feed(self, task_id: str, event: ev.Event) -> None:
        runner = self._runners.get(task_id)
        if runner is not None:
            runner.feed(event)

    async def close(self) -> None:
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))

    # ---- what runners say ----

    def report(self, life: Life) -> None:
        self._report(life)

    def changed(self, life: Life) -> None:
        for listener in self._listeners:
            listener(life)
        follows = self._runners.get(life.task.predecessor_id)
        view = _network_view(life, takes_over=follows is not None and follows.life.died)
        if self._seen.get(life.id) != view:
            self._seen[life.id] = view
            self._network_changed()

    def forgotten(self, life: Life) -> None:
        for table in (self._runners, self._merged, self._seen):
            table.pop(life.id, None)

    def _add(self, first: Step) -> None:
        runner = TaskRunner(self._tools, self._addresses, first, self)
        self._runners[first[0].id] = runner
        runner.begin()


def _network_view(life: Life, *, takes_over: bool) -> tuple[object, ...]:
    """Of a task, what links, rules and balancer depend on. Services' ports go by what the managers say; a host's own
    port, and the place of a task that died while no manager was there (`takes_over`), are the agent's to fill."""
    task = life.task
    serves = life.status.state == pb.TASK_STATE_RUNNING, life.status.health
    return (
        serves if task.spec.host_ports or takes_over else None,
        life.is_over,
        life.died,
        task.leaving,
        task.released,
        task.addresses_free,
        life.phase is Phase.FORGOTTEN,
    )
