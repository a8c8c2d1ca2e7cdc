"""A manager's parts in this process: a store in memory, a cache, a term of leadership, a real gRPC server with TLS.

Each test puts together what it needs: `Cluster` has the store and the world; `Cluster.lead` adds the dispatcher.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from pyswarm_core import tls
from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.kinds import LEADER_KEY, Stored
from pyswarm_core.store import base
from pyswarm_core.store.cache import WatchCache
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.together import run_together
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import dispatcher_pb2_grpc as wire_grpc
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api import servicer as control_servicer
from pyswarm_manager.api.admissions import Admissions
from pyswarm_manager.api.errors import ErrorInterceptor
from pyswarm_manager.api.images import Reference
from pyswarm_manager.api.logs import LogReader, no_leader
from pyswarm_manager.api.resolve import Resolved, Unresolved
from pyswarm_manager.api.servicer import BEGUN_WITHIN, ControlServicer
from pyswarm_manager.api.services import Services
from pyswarm_manager.clock import Clock, SystemClock
from pyswarm_manager.dispatcher.derived import Deriver
from pyswarm_manager.dispatcher.servicer import DispatcherServicer
from pyswarm_manager.dispatcher.term import Term, Timing
from pyswarm_manager.endpoints import derive
from pyswarm_manager.plan import Delete, Plan, Put, Write
from pyswarm_manager.presence import managers
from pyswarm_manager.world import CachedWorld
from pyswarm_manager.writer import Writer
from tests.support.fake_agent import Behaviour, FakeAgent

WAIT = 10.0  # seconds; a test that needs more is broken


async def eventually(condition: Callable[[], Any], what: str = "", *, within: float = WAIT) -> Any:
    """Waits until the condition holds; returns what it returned."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"did not become true in {within} s: {what or condition}")
        await asyncio.sleep(0.002)


class HastyClock(SystemClock):
    """A second of it is over in a twenty-fifth of one."""

    def now(self) -> float:
        return 25 * super().now()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 25)


class FakeResolver:
    """A registry's answers by image name; what is not in it cannot be resolved."""

    def __init__(self) -> None:
        self.known: dict[str, Resolved] = {}
        self.asked: list[tuple[str, str]] = []  # (image, user name)

    def has(self, image: str, digest: str, architecture: str = "amd64") -> None:
        platform = spec.Platform(os="linux", architecture=architecture)
        self.known[image] = Resolved(digest, (platform,))

    async def resolve(self, reference: Reference, auth: pb.RegistryAuth | None) -> Resolved:
        self.asked.append((reference.image, auth.username if auth else ""))
        try:
            return self.known[reference.image]
        except KeyError:
            raise Unresolved("the registry has no such tag") from None


class Cluster:
    """`async with Cluster.make() as cluster`."""

    def __init__(
        self, clock: Clock | None = None, store: MemoryStore | None = None, begun_within: float = BEGUN_WITHIN
    ) -> None:
        self.clock = clock or SystemClock()
        self.store = store or MemoryStore()
        self._begun_within = begun_within
        self.resolver = FakeResolver()
        self.world = CachedWorld()
        self.cache = WatchCache(self.store, self.world)
        self.authority = tls.Authority.create("test")
        self.address = ""
        self.leader_revision = 0
        self.term: Term | None = None
        self.servicer = DispatcherServicer(lambda: self.cache.leader.address if self.cache.leader else "")
        self.acknowledged = 0
        self.agents: dict[str, FakeAgent] = {}
        self._terms: list[asyncio.Task[None]] = []

    @classmethod
    @asynccontextmanager
    async def make(
        cls,
        clock: Clock | None = None,
        *,
        store: MemoryStore | None = None,
        serve: bool = True,
        begun_within: float = BEGUN_WITHIN,
    ) -> AsyncIterator[Cluster]:
        cluster = cls(clock, store, begun_within)
        following = asyncio.create_task(cluster.cache.run())
        await cluster.cache.wait_for(1)
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor()], options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        try:
            if serve:
                control_grpc.add_ControlServicer_to_server(cluster.control(), server)
                wire_grpc.add_DispatcherServicer_to_server(cluster.servicer, server)
                identity = cluster.authority.issue(common_name="manager-1", role="manager")
                port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity))
                cluster.address = f"127.0.0.1:{port}"
                await server.start()
            yield cluster
        finally:
            await cluster.step_down()
            await server.stop(0)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def control(self) -> ControlServicer:
        """The API of a manager on this store. Another `Cluster` on the same store is another manager."""
        rng = random.SystemRandom()
        admissions = Admissions(self.store, self.world, self.cache.wait_for, rng)
        known = control_servicer.Cluster(
            "manager-1", lambda: self.cache.leader, lambda: self.cache.connected, lambda: managers(self.store)
        )
        services = Services(self.world, admissions, self.resolver, self.clock, rng)
        logs = LogReader(self.world, lambda: self.term.logs if self.term else None, self._forward, self.clock)
        return ControlServicer(
            self.world, known, admissions, services, logs, self.clock, rng, begun_within=self._begun_within
        )

    async def _forward(self, request: control.LogsRequest) -> AsyncIterator[control.LogsResponse]:
        raise no_leader()
        yield

    @asynccontextmanager
    async def client(self, role: tls.Role = "client") -> AsyncIterator[control_grpc.ControlAsyncStub]:
        identity = self.authority.issue(common_name="tester", role=role)
        credentials = tls.client_credentials(identity)
        async with grpc.aio.secure_channel(self.address, credentials, options=tls.channel_options()) as channel:
            yield control_grpc.ControlStub(channel)

    # Leadership.

    async def lead(
        self,
        timing: Timing | None = None,
        *,
        is_certain: Callable[[], bool] = lambda: True,
        deriver: Deriver = derive,
        catch_up: Callable[[int], Awaitable[None]] | None = None,
        opens_after: float = 0.0,
    ) -> Term:
        """A new term, on a new leader's key; the one before is deposed, though it does not know. `opens_after`: seconds
        in which its view of the store is behind."""
        leader = pb.Leader(manager_id="manager-1", address=self.address)
        await self.store.txn([], [base.Delete(LEADER_KEY)])
        result = await self.store.txn([], [base.Put(LEADER_KEY, leader.SerializeToString())])
        self.leader_revision = result.revision
        await self.cache.wait_for(result.revision)
        self.writer = Writer(self.store, base.Compare(LEADER_KEY, base.Field.CREATE, result.revision))
        self.term = Term(
            self.world,
            self.writer,
            catch_up or self.cache.wait_for,
            deriver,
            self.clock,
            random.Random(1),
            leader_revision=result.revision,
            timing=timing or Timing(heartbeat_period=0.2),
            acknowledged=self._note_ack,
            is_certain=is_certain,
        )
        await asyncio.sleep(opens_after)
        self.term.open()
        self.servicer.term = self.term
        self._terms.append(asyncio.create_task(run_together(self.term.run())))
        return self.term

    async def impatient(self, revision: int) -> None:
        """A catch-up that has no time."""
        if self.cache.revision < revision:
            raise StoreUnavailable("the watch has not delivered it yet")

    async def step_down(self) -> None:
        self.servicer.term = self.term = None
        terms, self._terms = self._terms, []
        for term in terms:
            term.cancel()
        await asyncio.gather(*terms, return_exceptions=True)

    def _note_ack(self) -> None:
        self.acknowledged += 1

    # What is stored.

    async def put(self, *messages: Stored) -> int:
        """Stores them as they are, whatever is there."""
        return await self.write([Put(self._current(m)) for m in messages])

    async def delete(self, *messages: Stored) -> int:
        return await self.write([Delete(self._current(m)) for m in messages])

    async def write(self, writes: Iterable[Write]) -> int:
        revision = await Writer(self.store, None).apply(Plan(steps=(tuple(writes),)))
        await self.cache.wait_for(revision)
        return revision

    def _current(self, message: Stored) -> Stored:
        stored = {
            pb.Service: self.world.services,
            pb.Task: self.world.tasks,
            pb.Node: self.world.nodes,
            pb.Network: self.world.networks,
            pb.Rollout: self.world.rollouts,
            pb.RegistryAuth: self.world.auths,
            pb.Manager: self.world.managers,
            pb.RemovedNode: self.world.removed,
        }[type(message)].get(message.id)  # type: ignore[attr-defined]
        copy = type(message)()
        copy.CopyFrom(message)  # type: ignore[arg-type]
        copy.version = stored.version if stored else 0
        return copy

    # Agents.

    def agent(self, node_id: str, number: int = 1, *, role: tls.Role = "worker", **options: Any) -> FakeAgent:
        identity = self.authority.issue(common_name=node_id, role=role)
        options.setdefault("address", f"10.99.0.{number}")
        options.setdefault("behaviour", Behaviour())
        agent = FakeAgent(node_id, identity, [self.address], **options)
        self.agents[node_id] = agent
        return agent

    def check_agents(self) -> None:
        for agent in self.agents.values():
            assert agent.faults == []
