"""One life of an agent: the production agent, on a simulated host."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tests.simulation.disk import PartyDisk
from tests.simulation.facades import (
    Balancer,
    HostNetwork,
    Images,
    Links,
    Logs,
    Names,
    Publisher,
    Runtime,
    TaskSockets,
)
from tests.simulation.fuses import Fuses
from tests.simulation.host import Host
from tests.simulation.net import Net
from tests.simulation.streams import CONNECT_WITHIN, Link, Server
from tests.simulation.virtual import Party, world_time

from pyswarm_agent.app_agent import Agent, Parts
from pyswarm_agent.health.listening import PortWatch
from pyswarm_agent.health.prober import Prober
from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import Records
from pyswarm_agent.network.node import NodeNetwork
from pyswarm_agent.session import SessionOver, Stream
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.tasks.life import Phase
from pyswarm_agent.tasks.request import Here
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

DETAILS = bool(os.environ.get("SIM_DETAILS"))  # every message and every load of a kernel, in the trace
CPUS, MEMORY = 8 * 10**9, 16 << 30


class Ears(Protocol):
    """Hears what the agent is told and what it says."""

    def obeyed_stale(self, host: Host, fence: wire.Fence, newest: wire.Fence) -> None: ...


class AgentProcess:
    def __init__(
        self,
        host: Host,
        party: Party,
        net: Net,
        servers: Mapping[str, Server],
        certificate: bytes,
        rng: random.Random,
        ears: Ears,
        *,
        is_manager: bool,
    ) -> None:
        """`servers`: by address, those that run now."""
        self.host = host
        self.party = party
        self.links: list[Link] = []
        self.agent: Agent | None = None
        self.disk = PartyDisk(host.disk, party)
        self._net = net
        self._servers = servers
        self._certificate = certificate
        self._rng = rng
        self._ears = ears
        self._is_manager = is_manager

    async def run(self, managers: list[str]) -> None:
        """Until it is killed. A journal that cannot be read ends it, as the real one's daemon."""
        host = self.host
        host.is_told = False
        journal = Journal(Path("/agent/journal"), disk=self.disk, compact_at=200_000)
        journal.open()
        runtime, sockets = Runtime(host, self.party), TaskSockets(host)
        links = Links(host, self.party)
        network = NodeNetwork(
            Path("/run"),
            Balancer(host, self.party),  # type: ignore[arg-type]
            HostNetwork(host, self.party),  # type: ignore[arg-type]
            links,  # type: ignore[arg-type]
        )
        parts = Parts(
            records=Records(journal),
            runtime=runtime,
            images=Images(host, self.party),
            links=links,
            network=network,
            probes=Prober(runtime, host.now),
            ports=PortWatch(sockets.of, host.now, sockets.find),
            logs=Logs(),
            names=Names(),
            connector=self,
            publisher=Publisher(),
            here=Here(host.node_id, host.name, "169.254.1.1", (), "amd64"),
            hello=self._hello,
            fuses=Fuses(host, self.party),
            boot_id=f"boot {host.boots}",
        )
        loop = asyncio.get_running_loop()
        runtime.task_of = self._task
        self.agent = Agent(parts, Dialer(managers, self._rng), host.now, loop.time, loop.time)
        await self.agent.run()

    def starts_writer(self) -> bool:
        """An exclusive task of its is just being started."""
        lives = self.agent.tasks.lives().values() if self.agent is not None else ()
        return any(
            life.task.spec.exclusive
            and life.phase in (Phase.READY, Phase.STARTING)
            and life.task.desired_state == pb.TASK_STATE_RUNNING
            for life in lives
        )

    def _task(self, task_id: str) -> pb.Task:
        assert self.agent is not None
        life = self.agent.tasks.life(task_id)
        assert life is not None, "it is being made"
        return life.task

    def _hello(self) -> wire.Hello:
        platform = spec.Platform(os="linux", architecture="amd64")
        return wire.Hello(
            node_id=self.host.node_id,
            address=self.host.address,
            role=spec.NODE_ROLE_MANAGER if self._is_manager else spec.NODE_ROLE_WORKER,
            description=pb.NodeDescription(
                hostname=self.host.name, platform=platform, nano_cpus=CPUS, memory=MEMORY, version="sim", mtu=1500
            ),
            labels={"zone": "ab"[int(self.host.name[-1]) % 2]},
        )

    # ---- a session.Connector ----

    async def open(self, address: str) -> Stream:
        self.party.check()
        host = address.partition(":")[0]
        server = self._servers.get(address)
        if not self._net.linked(self.host.name, host) or (server is not None and server.party.frozen):
            await asyncio.sleep(CONNECT_WITHIN)
            self.party.check()
            raise SessionOver(f"{address} cannot be reached within {CONNECT_WITHIN:g} s")
        await asyncio.sleep(3 * self._net.delay(self.host.name, host))
        self.party.check()
        server = self._servers.get(address)
        if server is None or not server.party.alive or server.refuses:
            raise SessionOver("connection refused")
        link = Link(self._net, self._rng, self.party, self.host.name, server, self._certificate)
        self.links = [old for old in self.links if not old.is_over]
        self.links.append(link)
        heard = _Heard(self.host, self._ears)
        link.on_read, link.on_write = heard.read, heard.wrote
        return link

    def died(self) -> None:
        if self.host.disk.lacks:
            self.host.newest_fence = wire.Fence()  # it could not be written down: ARCHITECTURE.md, a full disk
            self.host.forgot, self.host.disk.lacks = True, False
        for link in self.links:
            link.agent_died()


class _Heard:
    """Of one session: which of this host's tasks were leaving in each endpoint update, and whether a message of a
    deposed leader was obeyed. The newest fence that the host has seen is the host's, across its agents."""

    def __init__(self, host: Host, ears: Ears) -> None:
        self._host = host
        self._ears = ears
        # service → task → whether it leaves; own tasks alone, as told so far
        self._told: dict[str, dict[str, bool]] = {}
        self._by_seq: dict[int, dict[str, bool]] = {}
        self._seq = 0
        self._stale: wire.Fence | None = None
        self._fresh: wire.Fence | None = None  # of a message that the agent may yet die of, before it does anything
        self._beats: dict[float, float] = {}  # what a heartbeat says of its sending → when it was sent, by its clock
        self._is_complete = False  # it was told a complete set

    def read(self, message: wire.ManagerMessage | None) -> None:
        """The next message is being read: the one before it was obeyed."""
        if self._stale is not None:
            self._ears.obeyed_stale(self._host, self._stale, self._host.newest_fence)
            self._stale = None
        if self._fresh is not None:
            self._host.newest_fence, self._fresh = self._fresh, None
        if message is None:
            return
        fence, newest = message.fence, self._host.newest_fence
        if message.HasField("not_leader"):
            return
        if (fence.leader_revision, fence.revision) < (newest.leader_revision, newest.revision):
            self._stale = fence
            return
        self._fresh = fence
        if DETAILS:
            self._host.trace.add(f"{self._host.name} is told {_brief(message)}", self._host.node_id)
        if message.HasField("endpoints"):
            self._endpoints(message.endpoints)
        elif message.HasField("heartbeat_ack") and message.heartbeat_ack.permit:
            sent_at = self._beats.get(message.heartbeat_ack.sent_at, -math.inf)
            self._host.watcher.permitted(self._host)
            self._host.permitted = max(self._host.permitted, sent_at)

    def wrote(self, message: wire.AgentMessage) -> None:
        if message.HasField("heartbeat"):
            self._beats[message.heartbeat.sent_at] = self._host.boot_time()
        elif message.HasField("applied"):
            if self._is_complete:
                self._host.confirmed_at = world_time()
            for task_id, leaves in self._by_seq.get(message.applied.seq, {}).items():
                if leaves and self._by_seq[self._seq].get(task_id, True):
                    self._host.left[task_id] = None

    def _endpoints(self, update: wire.EndpointUpdate) -> None:
        if update.complete:
            self._told = {}
            self._host.is_told = self._is_complete = True
            self._host.forgot = False
        for service in update.services:
            self._told[service.service_id] = {
                endpoint.task_id: endpoint.state == ep.ENDPOINT_STATE_LEAVING
                for endpoint in service.endpoints
                if endpoint.node_id == self._host.node_id
            }
        for service_id in update.removed_services:
            self._told.pop(service_id, None)
        now = {task_id: leaves for told in self._told.values() for task_id, leaves in told.items()}
        self._seq, self._by_seq[update.seq] = update.seq, now
        self._by_seq.pop(update.seq - 20, None)
        for task_id, leaves in now.items():
            if not leaves:  # of a node that was down and has returned: its kernel may take it back from now on
                self._host.left.pop(task_id, None)


def _brief(message: wire.ManagerMessage) -> str:
    if message.HasField("endpoints"):
        update = message.endpoints
        services = " ".join(
            f"{service.name}[{' '.join(f'{e.task_id[:8]}:{e.state}' for e in service.endpoints)}]"
            for service in update.services
        )
        return (
            f"endpoints {update.seq}{' complete' * update.complete} up to {update.revision}: {services}"
            f" settled {[task_id[:8] for task_id in update.settled_tasks]}"
        )
    if message.HasField("assignments"):
        told = message.assignments
        tasks = " ".join(f"{t.id[:8]}:{t.desired_state}{'L' * t.leaving}{'R' * t.released}" for t in told.tasks)
        return f"assignments {told.seq}{' complete' * told.complete}: {tasks} removed {list(told.removed_tasks)}"
    return str(message.WhichOneof("body"))
