"""The dispatcher's side of one term of leadership: who is connected, what they are owed, what is stored of them.

It begins with nothing but the world. Every node gets a grace period, from the start of the term, to connect again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from pyswarm_core.errors import PreconditionFailed, StoreUnavailable
from pyswarm_core.log import get_logger
from pyswarm_core.together import run_together
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.nodes import number, underlay_conflict
from pyswarm_manager.clock import Clock
from pyswarm_manager.dispatcher.acks import NodeAcks
from pyswarm_manager.dispatcher.attached import Attached
from pyswarm_manager.dispatcher.derived import Deriver, EndpointCache
from pyswarm_manager.dispatcher.logs import LogBroker
from pyswarm_manager.dispatcher.nodes import Facts, Limits, judge, register
from pyswarm_manager.dispatcher.reports import Reports
from pyswarm_manager.dispatcher.session import Session, node_address
from pyswarm_manager.loops import Applier, LiveWorld
from pyswarm_manager.plan import Plan, Put
from pyswarm_manager.queue import KeyQueue
from pyswarm_manager.roster import api_addresses
from pyswarm_manager.tasks import endpoint_version, is_endpoint, is_terminal, may_be_exclusive
from pyswarm_manager.world import Change

log = get_logger("dispatcher.term")

_NODE, _HOLD = "node/", "hold/"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `grace`: what all nodes have, at the start of a term, to be heard of."""

    heartbeat_period: float = 5.0
    limits: Limits = field(default_factory=Limits)
    grace: float = 15.0


class Term:
    """`run` it beside the loops, with `acks` as theirs. `admit` and `leave` are for the servicer; the rest is what
    sessions need (`session.Leadership`)."""

    def __init__(
        self,
        world: LiveWorld,
        applier: Applier,
        catch_up: Callable[[int], Awaitable[None]],
        deriver: Deriver,
        clock: Clock,
        rng: random.Random,
        *,
        leader_revision: int,
        timing: Timing,
        acknowledged: Callable[[], None],
        steady: Callable[[], float] | None = None,
        is_certain: Callable[[], bool] = lambda: True,
    ) -> None:
        """`steady`: seconds of a clock that nobody sets, which silence is measured by; by default `clock`'s.
        `is_certain`: whether nobody else can lead at this moment."""
        self.world = world
        self.endpoints = EndpointCache(deriver)
        self.acks = NodeAcks(acknowledged)
        self.logs = LogBroker(self._session_of, rng)
        self.node_list_version = 0
        self.awaited_revision = 0
        self.managers: tuple[str, ...] = ()
        self._attached = Attached(())
        self._applier = applier
        self._catch_up = catch_up
        self._clock = clock
        self._timing = timing
        self._leader_revision = leader_revision
        self._reports = Reports(world, applier, catch_up, clock, rng)
        self._queue = KeyQueue("dispatcher", self._work, clock, rng, steady=steady)
        self._sessions: dict[str, Session] = {}
        self.steady = steady or clock.now
        self._began = self.steady()  # see `open`
        self._heard: dict[str, float] = {}
        self._given = 0  # the highest number of a node that this term has given
        self._is_certain = is_certain
        self._turning: set[str] = set()  # nodes that are being stored as down
        self._newcomers: dict[str, asyncio.Future[None]] = {}
        self._is_over = False
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def sessions(self) -> Collection[Session]:
        return self._sessions.values()

    @property
    def attached_networks(self) -> Collection[str]:
        return self._attached.networks

    @property
    def queue(self) -> KeyQueue:
        return self._queue

    def open(self) -> None:
        """Reads the world as it is. Before `run`, and before the first `admit`: a session's first set is complete."""
        # As if heard so long ago that what is left of the time is the grace: from now, for nobody could come before.
        self._began = self.steady() + self._timing.grace - self._timing.limits.down_after
        self._unsubscribe = self.world.subscribe(self._changed)
        self._attached = Attached(self.world.services.values())
        self.managers = api_addresses(self.world.nodes, self.world.managers)
        for node_id in self.world.nodes:
            self._queue.add(_NODE + node_id)
        for service_id in sorted({task.service_id for task in self.world.tasks.values()}.union(self.world.services)):
            self._refresh(service_id)
        for task in self.world.tasks.values():
            self._await_confirmations(task)

    async def run(self) -> None:
        """Until cancelled or Deposed; all sessions end with it."""
        try:
            await run_together(self._queue.run(), self._reports.run())
        finally:
            self._unsubscribe()
            self._is_over = True
            for session in list(self._sessions.values()):
                session.close(wire.ManagerMessage(not_leader=wire.NotLeader()))
            for future in self._newcomers.values():
                if not future.done():
                    future.set_exception(StoreUnavailable("This manager has just stopped leading: try the next one."))
            self.logs.close()

    # For the servicer.

    async def admit(self, hello: wire.Hello, *, is_manager: bool) -> Session:
        """The session of a node, registered if it is new. Ends another session of the same node.

        PreconditionFailed: it cannot join. StoreUnavailable: the term has ended."""
        conflict = underlay_conflict(self.world, hello.address)
        if conflict:
            raise PreconditionFailed(conflict)
        if hello.node_id not in self.world.nodes:
            number(self.world)  # raises when all were given
        session = Session(self, hello, is_manager=is_manager, heartbeat_period=self._timing.heartbeat_period)
        former = self._sessions.get(hello.node_id)
        self._sessions[hello.node_id] = session
        if former is not None:
            log.info("a second session ends the first", node=hello.node_id)
            former.close()
        self.acks.reset(hello.node_id)
        self.heard(session)
        self._queue.add(_NODE + hello.node_id)
        try:
            await self._registered(hello.node_id)
        except BaseException:
            self.leave(session)
            raise
        log.info("session opened", node=hello.node_id, hostname=hello.description.hostname, address=hello.address)
        return session

    def leave(self, session: Session) -> None:
        """The stream has ended. Nothing is stored of that: the agent has time to come back."""
        session.close()
        self._reports.forget(session)
        self.logs.session_ended(session)
        if self._sessions.get(session.node_id) is session:
            del self._sessions[session.node_id]
            self._queue.add(_NODE + session.node_id)
            log.info("session ended", node=session.node_id)

    # For sessions.

    def node_list(self) -> Sequence[wire.NodeAddress]:
        return [node_address(node) for node in self.world.nodes.values()]

    def fence(self) -> wire.Fence:
        return wire.Fence(leader_revision=self._leader_revision, revision=self.world.revision)

    def heard(self, session: Session) -> None:
        self._heard[session.node_id] = self.steady()

    def may_permit(self, session: Session) -> bool:
        """Whether exclusive tasks may run on. Not on a node that is down, or may be so in the store by now."""
        node = self.world.nodes.get(session.node_id)
        is_up = node is not None and node.state == pb.NODE_STATE_READY and session.node_id not in self._turning
        return is_up and self._sessions.get(session.node_id) is session and self._is_certain()

    def reported(self, session: Session, batch: wire.StatusBatch) -> None:
        self._reports.add(session, batch)

    def confirmed(self, session: Session, revision: int) -> None:
        if self._sessions.get(session.node_id) is session:
            self.acks.confirm(session.node_id, revision)

    def session_changed(self, session: Session) -> None:
        key = _NODE + session.node_id
        if session.caught_up or session.unapplied_since is None:
            self._queue.add(key)
        if session.unapplied_since is not None:
            due_in = session.unapplied_since + self._timing.limits.apply_within - self.steady()
            self._queue.add_at(key, self._clock.now() + due_in)

    # The world.

    def _changed(self, changes: Sequence[Change], revision: int) -> None:
        services: set[str] = set()  # whose endpoints may differ
        tasks: dict[str, list[str]] = {}  # node id → tasks whose assignment may differ
        awaited, cursor, nodes = self.awaited_revision, self.endpoints.cursor, self.node_list_version
        has_networks = has_managers = False
        standing: set[str] = set()  # nodes whose role may differ
        for change in changes:
            match change.kind:
                case "task":
                    for task in (change.old, change.new):
                        if isinstance(task, pb.Task):
                            services.add(task.service_id)
                            tasks.setdefault(task.node_id, []).append(task.id)
                    if isinstance(change.new, pb.Task):
                        self._await_confirmations(change.new)
                        self._let_node_return(change.new)
                case "service":
                    services.add(change.id)
                    old, new = cast("pb.Service | None", change.old), cast("pb.Service | None", change.new)
                    has_networks |= self._attached.change(old, new)
                case "rollout":
                    services.add(cast("pb.Rollout", change.new or change.old).service_id)
                case "node":
                    self._node_changed(change, services)
                    standing.add(change.id)
                    has_managers |= _is_managers(change)
                case "manager":
                    has_managers = True
                case "network":
                    has_networks = True
                case "registryauth":
                    for task in self.world.tasks_of_service(change.id):
                        tasks.setdefault(task.node_id, []).append(task.id)
        for service_id in sorted(services):
            self._refresh(service_id)
        if has_managers:
            self.managers = api_addresses(self.world.nodes, self.world.managers)
        is_owed = (awaited, cursor, nodes) != (self.awaited_revision, self.endpoints.cursor, self.node_list_version)
        for session in self._sessions.values():
            if session.node_id in tasks:
                session.tasks_changed(tasks[session.node_id])
            if has_networks:
                session.networks_changed()
            if is_owed or has_managers or session.node_id in standing:
                session.woken()

    def _node_changed(self, change: Change, services: set[str]) -> None:
        old, new = cast("pb.Node | None", change.old), cast("pb.Node | None", change.new)
        services.update(task.service_id for task in self.world.tasks_of_node(change.id))
        if (node_address(old) if old else None) != (node_address(new) if new else None):
            self.node_list_version += 1
        newcomer = self._newcomers.pop(change.id, None)
        if newcomer is not None and new is not None and not newcomer.done():
            newcomer.set_result(None)
        if new is None:
            self._heard.pop(change.id, None)
            session = self._sessions.get(change.id)
            if session is not None:
                log.info("node removed, its session ends", node=change.id)
                session.close()
        else:
            self._queue.add(_NODE + change.id)
            for task in self.world.tasks_of_node(change.id):
                self._await_confirmations(task)

    def _await_confirmations(self, task: pb.Task) -> None:
        """Keeps up `awaited_revision`: the drain planner compares confirmations with the versions of these tasks. Each
        session is owed an update of at least that revision, an empty one where nothing changed."""
        node = self.world.nodes.get(task.node_id)
        if not task.balanced_at and node is not None and is_endpoint(task, node):
            self.awaited_revision = max(self.awaited_revision, endpoint_version(task, node))
        to_leave = task.leaving and not (task.released and task.out_of_balancers_at)
        to_be_free = is_terminal(task) and not task.addresses_free
        if to_leave or to_be_free:
            self.awaited_revision = max(self.awaited_revision, task.version)

    def _let_node_return(self, task: pb.Task) -> None:
        """It waits until its exclusive tasks are given up."""
        node = self.world.nodes.get(task.node_id)
        if node is not None and node.permit_over:
            self._queue.add(_NODE + node.id)

    def _refresh(self, service_id: str) -> None:
        wake_at = self.endpoints.refresh(self.world, service_id, self._clock.now())
        if wake_at is not None:
            self._queue.add_at(_HOLD + service_id, wake_at)

    # What is stored of nodes.

    async def _work(self, key: str) -> float | None:
        if key.startswith(_HOLD):
            cursor = self.endpoints.cursor
            self._refresh(key.removeprefix(_HOLD))
            if cursor != self.endpoints.cursor:
                for session in self._sessions.values():
                    session.woken()
            return None
        return await self._look_after(key.removeprefix(_NODE))

    async def _look_after(self, node_id: str) -> float | None:
        session = self._sessions.get(node_id)
        if session is not None and session.is_closed:
            session = None  # on its way out: of a node that was removed, say, which must not be registered again by it
        facts = Facts(
            heard_at=self._heard.get(node_id, self._began),
            hello=session.hello if session else None,
            is_manager=session is not None and session.is_manager,
            caught_up=session is not None and session.caught_up,
            has_exclusive=any(may_be_exclusive(task) for task in self.world.tasks_of_node(node_id)),
            unapplied_since=session.unapplied_since if session else None,
        )
        node = self.world.nodes.get(node_id)
        now = self._clock.now()
        if node is None:
            if session is not None:
                # Two that register on one world must not get one number: neither write would conflict.
                self._given = number(self.world, self._given)
                await self._store(register(facts, self._given, now))
                log.info(
                    "node registered", node=node_id, hostname=facts.hello.description.hostname if facts.hello else ""
                )
            return None  # the change brings us back
        verdict = judge(node, facts, self._timing.limits, now, self.steady())
        if verdict.node is not None:
            log.info(
                "node changes",
                node=node_id,
                state=pb.NodeState.Name(verdict.node.state).removeprefix("NODE_STATE_").lower(),
                serving=verdict.node.serving,
                message=verdict.node.state_message,
            )
            # Until it is certain what is stored, nothing may run on in the belief that the node is not down.
            if verdict.is_down:
                self._turning.add(node_id)
            await self._store(verdict.node)
            self._turning.discard(node_id)
        if session is not None and verdict.is_down:
            session.close()  # it hangs: a live agent opens another
        elif session is not None and verdict.is_stuck:
            session.resend_endpoints()
        return self._clock.now() + verdict.wake_in if verdict.wake_in is not None else None

    async def _store(self, node: pb.Node) -> None:
        await self._catch_up(await self._applier.apply(Plan(steps=((Put(node),),))))

    async def _registered(self, node_id: str) -> None:
        if self._is_over:
            raise StoreUnavailable("This manager has just stopped leading: try the next one.")
        if node_id not in self.world.nodes:
            future = self._newcomers.setdefault(node_id, asyncio.get_running_loop().create_future())
            await asyncio.shield(future)

    def _session_of(self, node_id: str) -> Session | None:
        return self._sessions.get(node_id)


def _is_managers(change: Change) -> bool:
    """A node that is to be a manager, or was."""
    nodes = [cast("pb.Node", node) for node in (change.old, change.new) if node is not None]
    return any(node.spec.role == spec.NODE_ROLE_MANAGER for node in nodes)
