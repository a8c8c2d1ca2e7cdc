"""One life of a manager: the production core, with a client of the simulated etcd in place of the real one's."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from tests.simulation.etcd import Client
from tests.simulation.host import Host
from tests.simulation.virtual import Party

from pyswarm_core.kinds import LEADER_KEY, PREFIX
from pyswarm_core.store.base import Compare, Op, Put, TxnResult
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.admissions import GUARD_KEY
from pyswarm_manager.api.images import Reference
from pyswarm_manager.api.resolve import Resolved, Unresolved
from pyswarm_manager.core import Core
from pyswarm_manager.presence import MANAGERS_PREFIX
from pyswarm_manager.settings import Settings
from pyswarm_manager.world import CachedWorld


class WallClock:
    """A `clock.Clock` of one host, which may jump."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> float:
        return self._host.now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Registry:
    """A `resolve.Resolver`: every tag has a digest, but those of images that nobody has."""

    async def resolve(self, reference: Reference, auth: pb.RegistryAuth | None) -> Resolved:
        await asyncio.sleep(0.01)
        if "/unknown" in reference.repository:
            raise Unresolved("the registry has no such tag")
        digest = "sha256:" + hashlib.sha256(reference.image.encode()).hexdigest()
        return Resolved(digest, (spec.Platform(os="linux", architecture="amd64"),))


class Judge(Protocol):
    def wrote_without_leading(self, manager: str, keys: Sequence[str]) -> None: ...


class ManagerProcess:
    def __init__(
        self, host: Host, party: Party, client: Client, rng: random.Random, judge: Judge, address: str
    ) -> None:
        self.host = host
        self.party = party
        self.client = client
        self.address = address
        self.leads = False
        self._judge = judge
        self._terms: set[int] = set()
        settings = Settings(
            manager_id=host.node_id,
            advertise=address,
            etcd_endpoints=("sim:2379",),
            metrics_addr="",
            compact_every=120.0,
            keep_revisions=200,
        )
        self.core = Core(
            settings,
            client,
            CachedWorld(),
            Registry(),
            _no_logs,
            WallClock(host),
            rng,
            led=self._led,
            monotonic=host.boot_time,
        )
        client.judge = self._watch_write

    async def run(self) -> None:
        await self.core.run()

    def truly_leads(self) -> bool:
        """The key is there, and this process has put it there."""
        leader = self.client.store.peek(LEADER_KEY)
        return leader is not None and leader.create_revision in self._terms

    async def _led(self, leads: bool) -> None:
        self.leads = leads
        if leads:
            self.host.trace.add(f"the manager on {self.host.name} leads")

    def _watch_write(self, compares: Sequence[Compare], ops: Sequence[Op]) -> Callable[[TxnResult], None]:
        """Whatever only the leader may write: is it written in a term that this process had won when it began to?"""
        keys = [op.key for op in ops if op.key.startswith(PREFIX)]
        if any(isinstance(op, Put) and op.key == LEADER_KEY for op in ops):
            return self._won
        if any(key in (GUARD_KEY, LEADER_KEY) or key.startswith(MANAGERS_PREFIX) for key in keys):
            return lambda result: None
        terms = frozenset(self._terms)

        def verdict(result: TxnResult) -> None:
            if result.succeeded and keys:
                leader = self.client.store.peek(LEADER_KEY)
                if leader is None or leader.create_revision not in terms:
                    self._judge.wrote_without_leading(self.host.name, keys)

        return verdict

    def _won(self, result: TxnResult) -> None:
        if result.succeeded:
            self._terms.add(result.revision)


async def _no_logs(request: control.LogsRequest) -> AsyncIterator[control.LogsResponse]:
    raise NotImplementedError
    yield control.LogsResponse()
