"""The agent: tasks, applier and session put together, and what each learns of the others.

Everything that touches the host comes in by the constructor, so that a test can run a whole agent on a host of tables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyswarm_agent.applier import Applier, Kernel, Mark, Names
from pyswarm_agent.exclusive import Exclusive, Fuses
from pyswarm_agent.interfaces import Images, Links, Runtime
from pyswarm_agent.journal_records import Records
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_agent.permit import boot_time
from pyswarm_agent.session import Connector, Session
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.session_status import StatusBox
from pyswarm_agent.session_view import ManagerView
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks import successor
from pyswarm_agent.tasks.life import Life
from pyswarm_agent.tasks.machine import is_untold
from pyswarm_agent.tasks.request import Here
from pyswarm_agent.tasks.supervisor import Supervisor
from pyswarm_agent.tasks.tools import Balancer, Ports, Probes, Slots, TaskLogs, Tools
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.together import run_together
from pyswarm_core.v1 import dispatcher_pb2 as wire

log = get_logger("agent.app")

FILL_PERIOD = 1.0  # seconds
SYNC_PERIOD = 10.0  # seconds: what need not be on the disk at once is there after this
COLLECT_PERIOD = 600.0  # between two looks for images to delete


class Network(Balancer, Kernel, Protocol):
    """Of `network.inputs.Network`, what the agent calls once it runs."""


class Publisher(Protocol):
    """`publish.LogPublisher` is the real one."""

    def start(self, request: wire.LogRequest, address: str) -> None: ...
    def cancel(self, request_id: str) -> None: ...
    def cancel_all(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent is made of, but for its own decisions."""

    records: Records
    runtime: Runtime
    images: Images
    links: Links
    network: Network
    probes: Probes
    ports: Ports
    logs: TaskLogs
    names: Names
    connector: Connector
    publisher: Publisher
    here: Here
    hello: Callable[[], wire.Hello]
    fuses: Fuses
    boot_id: str  # the kernel's, of this boot
    stands: Callable[[wire.Standing], None] = lambda standing: None  # told what this node is to be, and who manages


class Agent:
    """`run` until cancelled. A `session.Listener`."""

    def __init__(
        self,
        parts: Parts,
        dialer: Dialer,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] = boot_time,
        observe: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`clock`: unix seconds; `monotonic`: seconds, for spans; `boot`: since boot, for permits. `observe`: how long
        an endpoint update took until the kernel had it."""
        self._parts = parts
        self._observe = observe
        self._clock = clock
        self._monotonic = monotonic
        self.exclusive = Exclusive(
            parts.fuses,
            lambda: self.tasks.lives(),  # noqa: PLW0108 - they come below, and need this
            lambda task_id, event: self.tasks.feed(task_id, event),  # noqa: PLW0108
            boot,
        )
        self.view = ManagerView(parts.records, parts.here.node_id)
        self.box = StatusBox(monotonic)
        self.applier = Applier(parts.network, parts.names, self._inputs, self._applied, self._redirected, monotonic)
        tools = Tools(
            runtime=parts.runtime,
            images=parts.images,
            links=parts.links,
            balancer=parts.network,
            ready=self.applier,
            probes=parts.probes,
            ports=parts.ports,
            logs=parts.logs,
            lives=parts.records,
            here=parts.here,
            auth=self.view.auth,
            slots=Slots(),
            clock=clock,
            guard=self.exclusive.guard,
        )
        self.tasks = Supervisor(tools, self._report, self.applier.changed)
        self.tasks.listen(self.exclusive.changed)
        self.session = Session(
            parts.connector, dialer, self.box, parts.records, self, monotonic, permits=self.exclusive, boot=boot
        )

    async def run(self) -> None:
        try:
            await run_together(
                self.applier.run(),
                self._recover_and_talk(),
                self.exclusive.run(),
                self._fill_slots(),
                self._sync(),
                self._collect(),
            )
        finally:
            await self.tasks.close()

    async def _recover_and_talk(self) -> None:
        # What the last agent may not have told any more; oldest first, as a successor must come after its predecessor.
        for life in sorted(self._parts.records.lives().values(), key=lambda each: each.task.created_at):
            if not life.gone and not is_untold(life):
                self._report(life)
        # The kernel before the session: containers that were adopted must be reachable though no manager is.
        await self.tasks.recover(self._parts.boot_id)
        self.applier.changed()
        await self.session.run()

    # ---- a session's listener ----

    def hello(self) -> wire.Hello:
        return self._parts.hello()

    def welcomed(self, welcome: wire.Welcome) -> None:
        self._parts.publisher.cancel_all()
        self.view.welcome(welcome)
        self.applier.changed()

    def assigned(self, update: wire.AssignmentUpdate) -> None:
        self.view.assigned(update)
        known = self.tasks.lives().keys()
        self.tasks.assign(
            update.tasks, update.removed_tasks, update.complete, frozenset(self._parts.records.made_here())
        )
        if update.complete:
            self._tell_what_differs(update)
            self._tell_of_successors()
        self.view.forgotten(frozenset(update.removed_tasks) | (known - self.tasks.lives().keys()))
        self.applier.changed()

    def balanced(self, update: wire.EndpointUpdate, mark: Mark) -> None:
        self.view.balanced(update)
        self.applier.changed(mark)

    def stored(self, updates: list[wire.StatusUpdate]) -> None:
        for update in updates:
            if update.HasField("adopted"):
                # Taken over, or refused: then the next update says that it is not to be here.
                self._parts.records.set_made_here(update.task_id, 0)

    def stands(self, standing: wire.Standing) -> None:
        self._parts.records.set_standing(standing)
        self._parts.stands(standing)

    def removed(self) -> None:
        """Nobody will ever ask for these containers again: they are stopped, and nobody is sent here or from here."""
        if not self.tasks.lives() and not self.view.endpoints:
            return
        log.warning("this node was removed from its cluster: its containers are stopped", tasks=len(self.tasks.lives()))
        self.tasks.assign((), (), complete=True, keep=frozenset())
        self.view.assigned(wire.AssignmentUpdate(complete=True))
        self.view.balanced(wire.EndpointUpdate(complete=True))
        self.applier.changed()

    def logs_wanted(self, request: wire.LogRequest, address: str) -> None:
        self._parts.publisher.start(request, address)

    def logs_cancelled(self, request_id: str) -> None:
        self._parts.publisher.cancel(request_id)

    # ---- what the parts say ----

    def _inputs(self) -> NetworkInputs:
        return self.view.inputs(self.tasks.network_tasks(), self.tasks.dead())

    def _applied(self, mark: Mark) -> None:
        self.session.confirm(mark)
        self._observe(self.applier.last_seconds)

    def _redirected(self, task_id: str, at: float) -> None:
        self.tasks.feed(task_id, ev.Redirected(at))

    def _report(self, life: Life) -> None:
        update = wire.StatusUpdate(task_id=life.id, status=life.status)
        if life.id in self._parts.records.made_here():
            update.adopted.CopyFrom(life.task)
        self.box.put(update)

    def _tell_what_differs(self, update: wire.AssignmentUpdate) -> None:
        """A complete set carries the statuses as they are stored: whatever was lost on the way is told again."""
        for task in update.tasks:
            life = self.tasks.life(task.id)
            if life is not None and life.status != task.status and not is_untold(life):
                self._report(life)

    def _tell_of_successors(self) -> None:
        """After their predecessors' ends."""
        for task_id in self._parts.records.made_here():
            if (life := self.tasks.life(task_id)) is not None:
                self._report(life)

    # ---- without managers ----

    async def _fill_slots(self) -> None:
        """Looks once a second, while there is no session."""
        while True:
            await self.session.away.wait()
            await asyncio.sleep(FILL_PERIOD)
            lost_at = self.session.lost_at
            if lost_at is not None:
                now = self._clock()
                self._fill(
                    successor.plan(
                        self.tasks.lives(), self._parts.records.made_here(), now - (self._monotonic() - lost_at), now
                    )
                )

    def _fill(self, plan: successor.Plan) -> None:
        for each in plan.successors:
            log.warning(
                "no manager can be reached: filling the slot here",
                task=each.task.id,
                ended=each.replaces,
                service=each.task.service_name,
            )
            self._parts.records.set_made_here(each.task.id, each.number)
            self.tasks.add(each.task)
            if each.number > 1:  # nobody will ever ask for the one that it replaces
                self.box.forget(each.replaces)
                self.tasks.assign((), (each.replaces,), complete=False, keep=frozenset())
        if plan.start:
            self.tasks.assign(plan.start, (), complete=False, keep=frozenset())

    # ---- upkeep ----

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_PERIOD)
            try:
                await self._parts.records.sync()
            except PyswarmError as error:
                log.error("the journal is not on the disk", error=error)

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_PERIOD)
            try:
                await self._parts.images.collect(self.tasks.images_in_use())
            except Exception:
                log.exception("unused images were not looked for")
