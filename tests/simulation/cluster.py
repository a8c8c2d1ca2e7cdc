"""A whole cluster: hosts with their agents, managers with etcd members beside them, and the network between them.

It knows how to start, kill, freeze and cut; when, is the weather's business."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from tests.simulation.agent import AgentProcess
from tests.simulation.checks.told import ToldChecks
from tests.simulation.checks.writers import Writers
from tests.simulation.etcd import Client, Members, ObservedStore, Trouble
from tests.simulation.findings import Findings
from tests.simulation.host import Host
from tests.simulation.manager import ManagerProcess
from tests.simulation.net import Net
from tests.simulation.streams import Server
from tests.simulation.trace import Trace
from tests.simulation.truth import Truth
from tests.simulation.virtual import Party, world_time
from tests.simulation.watcher import HostWatcher

from pyswarm_core import tls
from pyswarm_core.kinds import MESSAGES, PREFIX
from pyswarm_core.store.base import Op
from pyswarm_core.v1 import objects_pb2 as pb

PORT = 2377


@lru_cache(maxsize=1)
def authority() -> tls.Authority:
    return tls.Authority.create()


@lru_cache(maxsize=64)
def certificate(name: str, role: tls.Role) -> bytes:
    return authority().issue(common_name=name, role=role).cert_pem


class Cluster:
    def __init__(self, seed: int, *, nodes: int = 5, managers: int = 3) -> None:
        self.seed = seed
        self.trace = Trace()
        self.findings = Findings(self.trace)
        self.truth = Truth()
        self.net = Net(self.rng("net"))
        self.store = ObservedStore(world_time)
        self.store.observers.append(self.truth.observe)
        self.trouble = Trouble()
        self.writers = Writers(self.truth, self.findings)
        self._told = ToldChecks(self.findings)
        self.watcher = HostWatcher(self.truth, self.findings, self.writers)
        self.hosts = {
            f"host-{n}": Host(f"host-{n}", n, self.trace, self.watcher, self.rng(f"host-{n}"))
            for n in range(1, nodes + 1)
        }
        self.watcher.hosts = self.writers.hosts = self.hosts
        self.manager_hosts = list(self.hosts)[:managers]
        self.members = Members(self.net, self.rng("members"), self.store, self.manager_hosts)
        self.agents: dict[str, AgentProcess] = {}  # by host, those that run
        self.managers: dict[str, ManagerProcess] = {}
        self.servers: dict[str, Server] = {}  # by address
        self.at_manager_write: Callable[[ManagerProcess, bool], None] = lambda manager, after: None
        self.at_journal_write: Callable[[AgentProcess], None] = lambda agent: None
        self._lives = 0
        self._world: list[asyncio.Task[None]] = []
        self.truth.listeners.append(self._tell)

    def rng(self, name: str) -> random.Random:
        """Of its own for each part, so that what one does shifts nothing for the others."""
        return random.Random(f"{self.seed}/{name}")

    def start(self) -> None:
        self._world.append(asyncio.ensure_future(self.members.expire_leases()))
        for host in self.manager_hosts:
            self.start_manager(host)
        for host in self.hosts:
            self.start_agent(host)

    # ---- managers ----

    def start_manager(self, name: str) -> None:
        host = self.hosts[name]
        if name in self.managers or not host.is_up:
            return
        party = self._party("manager", host)
        rng = self.rng(party.name)
        client = Client(party, name, self.store, self.members, self.net, self.trouble, rng)
        manager = ManagerProcess(host, party, client, rng, self.watcher, f"{name}:{PORT}")
        client.before_write = lambda ops: self._write_point(manager, False, ops)
        client.after_write = lambda ops: self._write_point(manager, True, ops)
        self.managers[name] = manager
        server = self.servers[manager.address] = Server(name, party, manager.core.dispatcher)
        server.may_permit = lambda to: manager.truly_leads() and not self._is_down(to)
        server.permitted_late = lambda to: self.writers.permits(name, to)
        server.tells = lambda to, message: self._told.tells(manager.core.world, name, to, message)
        self.trace.add(f"the manager on {name} starts")
        party.spawn(manager.run()).add_done_callback(lambda task: self._manager_ended(manager, task))

    def _write_point(self, manager: ManagerProcess, after: bool, ops: Sequence[Op]) -> None:
        """Of what is stored; not of leases and keys of presence, which are written all the time."""
        if any(op.key.split("/")[3] in MESSAGES for op in ops if op.key.startswith(PREFIX)):
            self.at_manager_write(manager, after)

    def _is_down(self, name: str) -> bool:
        node = self.truth.nodes.get(self.hosts[name].node_id)
        return node is not None and node.state == pb.NODE_STATE_DOWN

    def kill_manager(self, name: str) -> None:
        manager = self.managers.pop(name, None)
        if manager is None:
            return
        self.trace.add(f"the manager on {name} is killed")
        del self.servers[manager.address]
        manager.leads = False
        manager.party.kill()
        for agent in self.agents.values():
            for link in agent.links:
                if link.server_party is manager.party:
                    link.manager_died()

    def _manager_ended(self, manager: ManagerProcess, task: asyncio.Task[None]) -> None:
        if manager.party.alive:
            error = None if task.cancelled() else task.exception()
            self.findings.add("a daemon ended by itself", f"the manager on {manager.host.name}: {error!r}")

    def leader(self) -> ManagerProcess | None:
        return next((manager for manager in self.managers.values() if manager.leads), None)

    # ---- agents ----

    def start_agent(self, name: str) -> None:
        host = self.hosts[name]
        if name in self.agents or not host.is_up:
            return
        party = self._party("agent", host)
        is_manager = name in self.manager_hosts
        agent = AgentProcess(
            host, party, self.net, self.servers,
            certificate(host.node_id, "manager" if is_manager else "worker"),
            self.rng(party.name), self.watcher, is_manager=is_manager,
        )  # fmt: skip
        agent.disk.before_write = lambda: self.at_journal_write(agent)
        self.agents[name] = agent
        self.trace.add(f"the agent on {name} starts")
        managers = [f"{manager}:{PORT}" for manager in self.manager_hosts]
        party.spawn(agent.run(managers)).add_done_callback(lambda task: self._agent_ended(agent, task))

    def kill_agent(self, name: str) -> None:
        agent = self.agents.pop(name, None)
        if agent is None:
            return
        self.trace.add(f"the agent on {name} is killed")
        agent.party.kill()
        agent.died()

    def _agent_ended(self, agent: AgentProcess, task: asyncio.Task[None]) -> None:
        if agent.party.alive:
            error = None if task.cancelled() else task.exception()
            self.findings.add("a daemon ended by itself", f"the agent on {agent.host.name}: {error!r}")

    # ---- hosts ----

    def kill_host(self, name: str) -> None:
        host = self.hosts[name]
        if not host.is_up:
            return
        self.trace.add(f"{name} loses its power")
        self.net.set_up(name, False)
        self.kill_manager(name)
        self.kill_agent(name)
        host.lose_power()
        self.members.review()

    def start_host(self, name: str) -> None:
        host = self.hosts[name]
        if host.is_up:
            return
        self.trace.add(f"{name} is switched on")
        host.boot()
        self.net.set_up(name, True)
        if name in self.manager_hosts:
            self.start_manager(name)
        self.start_agent(name)

    # ---- looking ----

    def nodes_ready(self) -> bool:
        nodes = self.truth.nodes
        return all(
            (node := nodes.get(host.node_id)) is not None and node.state == pb.NODE_STATE_READY and node.serving
            for host in self.hosts.values()
        )

    def parties(self) -> Iterator[Party]:
        for agent in self.agents.values():
            yield agent.party
        for manager in self.managers.values():
            yield manager.party

    async def until(self, condition: Callable[[], object], within: float, *, every: float = 0.5) -> bool:
        end = world_time() + within
        while not condition():
            if world_time() >= end or self.findings.first is not None:
                return False
            await asyncio.sleep(every)
        return True

    def _party(self, kind: str, host: Host) -> Party:
        self._lives += 1
        return Party(f"{kind} {host.name}, life {self._lives}", host.clock)

    def _tell(self, kind: str, object_id: str, old: object, new: object) -> None:
        if isinstance(new, pb.Task):
            status = new.status
            flags = "".join(
                letter
                for letter, flag in (
                    ("L", new.leaving),
                    ("R", new.released),
                    ("F", new.addresses_free),
                    ("B", new.balanced_at > 0),
                )
                if flag
            )
            self.trace.add(
                f"v{new.version} {new.service_name}.{new.slot} {pb.TaskState.Name(status.state)[11:].lower()}"
                f" wanted {pb.TaskState.Name(new.desired_state)[11:].lower()} health {status.health} [{flags}]"
                f" {new.spec.container.image.rpartition('/')[2]} on {new.node_id or 'no node'} {status.error}",
                new.id,
                new.service_id,
                new.node_id,
            )
        elif isinstance(new, pb.Rollout):
            phases = ",".join(f"{p.slot or p.node_id}:{pb.SlotPhase.Name(p.phase)[11:].lower()}" for p in new.slots)
            self.trace.add(
                f"v{new.version} rollout of {new.service_name} {pb.RolloutState.Name(new.state)[14:].lower()}"
                f" {new.from_version}→{new.to_version} {phases} {new.reason}",
                new.id,
                new.service_id,
            )
        elif isinstance(new, pb.Service):
            self.trace.add(
                f"v{new.version} service {new.spec.name} spec {new.spec_version} replicas {new.spec.replicas}"
                f" {new.spec.task.container.image.rpartition('/')[2]}{' removing' if new.removing else ''}",
                new.id,
            )
        elif isinstance(new, pb.Node):
            self.trace.add(
                f"v{new.version} node {new.id} {pb.NodeState.Name(new.state)[11:].lower()} serving {new.serving}"
                f" availability {new.spec.availability} number {new.number} {new.state_message}",
                new.id,
            )
        elif isinstance(new, pb.Network):
            blocks = ",".join(f"{block.node_id}={block.cidr}" for block in new.blocks)
            self.trace.add(f"v{new.version} network {new.spec.name} {blocks}", new.id)
        elif new is None:
            self.trace.add(f"{kind} deleted", object_id)
