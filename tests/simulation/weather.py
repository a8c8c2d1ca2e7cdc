"""Everything that goes wrong. Each fault begins, lasts, and is undone; the number it comes with decides the rest."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.calm import Calm
from tests.simulation.cluster import Cluster
from tests.simulation.host import Container, Host
from tests.simulation.manager import ManagerProcess
from tests.simulation.user import HOST as USER
from tests.simulation.virtual import Party, later

from pyswarm_core.v1 import objects_pb2 as pb

Undo = Callable[[], None]


class Weather:
    def __init__(self, cluster: Cluster, calm: Calm) -> None:
        self._cluster = cluster
        self._calm = calm
        self._undo: dict[int, Undo] = {}
        self._at_leave: Callable[[pb.Task], None] | None = None
        cluster.truth.listeners.append(self._leaves)
        self._count = 0
        self.happened: Counter[str] = Counter()
        self.faults: dict[str, Callable[[random.Random], bool | None]] = {
            "a manager is killed": self.kill_manager,
            "a manager is killed at a write": self.kill_manager_at_write,
            "a manager is frozen": self.freeze_manager,
            "a leader loses time and etcd": self.lose_time,
            "a leader's writes are late": self.delay_writes,
            "a member is killed": self.kill_member,
            "etcd loses its quorum": self.kill_members,
            "etcd loses answers": self.lose_answers,
            "etcd is slow": self.slow_store,
            "a watch stands still": self.stall_watch,
            "history is compacted": self.compact,
            "streams break": self.break_streams,
            "a stream is half open": self.half_open,
            "a clock jumps": self.jump,
            "the network is slow": self.slow_network,
            "an agent is killed": self.kill_agent,
            "an agent is killed at a write": self.kill_agent_at_write,
            "an agent is away": self.kill_agent_long,
            "an agent is frozen": self.freeze_agent,
            "a disk is full": self.fill_disk,
            "a disk is slow": self.slow_disk,
            "a host loses its power": self.kill_host,
            "a host loses its power at a start": self.kill_host_at_start,
            "a host is cut off": self.cut_host,
            "a host is cut off one way": self.cut_one_way,
            "two hosts lose each other": self.cut_pair,
            "a container dies": self.kill_container,
            "a container dies while it drains": self.kill_draining,
            "a container falls ill": self.sicken,
            "a registry is away": self.fail_images,
            "images are slow": self.slow_images,
            "a kernel refuses": self.refuse,
            "a kernel hangs": self.hang,
            "a runtime fails": self.fail_runtime,
            "a host is slow": self.slow_host,
        }

    def begin(self, what: str, rng: random.Random) -> None:
        """`happened` counts it, unless there was nothing to hit; a fault that waits for its moment, when that comes."""
        if self.faults[what](rng) is not False:
            self.happened[what] += 1

    def end(self) -> None:
        """All that lasts is over now, and everything that was killed runs."""
        for number in list(self._undo):
            self._over(number)
        cluster = self._cluster
        cluster.at_manager_write = lambda manager, after: None
        cluster.at_journal_write = lambda agent: None
        self._at_leave = None
        for host in cluster.hosts.values():
            host.on_start = lambda host: None
        for party in list(cluster.parties()):
            party.thaw()
        for name in cluster.hosts:
            cluster.start_host(name)
            cluster.start_agent(name)
        for name in cluster.manager_hosts:
            cluster.members.start(name)
            cluster.start_manager(name)
        cluster.net.changed()

    # ---- managers ----

    def kill_manager(self, rng: random.Random) -> bool:
        name = self._some_manager(rng)
        runs = name in self._cluster.managers
        self._cluster.kill_manager(name)
        self._last(rng.choice((0.3, 2.0, 8.0, 20.0)), lambda: self._cluster.start_manager(name))
        return runs

    def kill_manager_at_write(self, rng: random.Random) -> bool:
        """Before one of its next writes to the store, or after."""
        left, after_write = rng.randrange(1, 12), rng.random() < 0.5
        cluster = self._cluster

        def look(manager: ManagerProcess, after: bool) -> None:
            nonlocal left
            if not manager.leads or after is not after_write:
                return
            left -= 1
            if left == 0:
                cluster.at_manager_write = lambda manager, after: None
                self.happened["a manager is killed at a write"] += 1
                cluster.kill_manager(manager.host.name)
                self._last(rng.choice((0.3, 5.0, 15.0)), lambda: cluster.start_manager(manager.host.name))

        cluster.at_manager_write = look
        return False

    def freeze_manager(self, rng: random.Random) -> bool:
        manager = self._cluster.managers.get(self._some_manager(rng))
        if manager is not None:
            self._freeze(manager.party, rng.choice((1.0, 4.0, 7.0, 12.0, 25.0)), hurts=False)
        return manager is not None

    def lose_time(self, rng: random.Random) -> bool:
        """Its clock stands still and it does not reach etcd: it cannot know that its lease has run out. Agents change
        to and fro between it and the one that leads instead."""
        manager = self._cluster.leader()
        if manager is None:
            return False
        self._note(f"the clock of the manager on {manager.host.name} stands still, and etcd is out of its reach")
        manager.lose_time()
        manager.client.is_cut_off = True
        self._cluster.members.review()
        seconds = rng.choice((9.0, 14.0, 20.0))
        for turn in range(int(seconds / 1.5)):
            later(1.5 * turn + rng.random(), self._turn_away, rng.choice(self._cluster.manager_hosts))
        for name in rng.sample(list(self._cluster.hosts), 3):
            # What an agent knows of leaders must outlive it.
            at = rng.uniform(6.5, seconds - 1)
            later(at, self._cluster.kill_agent, name)
            later(at + 0.3, self._cluster.start_agent, name)

        def mend() -> None:
            manager.is_timeless = False
            manager.client.is_cut_off = False
            self._cluster.members.review()

        self._last(seconds, mend, hurts=True)
        return True

    def _turn_away(self, name: str) -> None:
        """The manager loses its streams, and takes none for a moment."""
        manager = self._cluster.managers.get(name)
        server = self._cluster.servers.get(manager.address) if manager is not None else None
        if manager is None or server is None:
            return
        server.refuses = True
        later(1.2, setattr, server, "refuses", False)
        for agent in self._cluster.agents.values():
            for link in agent.links:
                if link.server_party is manager.party:
                    link.sever()

    def delay_writes(self, rng: random.Random) -> bool:
        """They arrive when another one leads already."""
        manager = self._cluster.leader()
        if manager is None:
            return False
        self._note(f"writes of the manager on {manager.host.name} are late")
        manager.client.late_for = rng.uniform(5.5, 12.0)
        dies = rng.random() < 0.6

        def end() -> None:
            manager.client.late_for = 0.0
            if dies and self._cluster.managers.get(manager.host.name) is manager:
                self._cluster.kill_manager(manager.host.name)
                later(rng.uniform(0.3, 9.0), self._cluster.start_manager, manager.host.name)

        self._last(rng.uniform(1.0, 4.0), end)
        return True

    # ---- etcd ----

    def kill_member(self, rng: random.Random) -> None:
        name = rng.choice(self._cluster.members.hosts)
        self._note(f"the etcd member on {name} is killed")
        self._cluster.members.kill(name)
        self._last(rng.uniform(1, 40), lambda: self._cluster.members.start(name))

    def kill_members(self, rng: random.Random) -> None:
        names = rng.sample(self._cluster.members.hosts, 2)
        self._note(f"the etcd members on {' and '.join(names)} are killed")
        for name in names:
            self._cluster.members.kill(name)

        def start() -> None:
            for name in names:
                self._cluster.members.start(name)

        self._last(rng.choice((2.0, 8.0, 25.0, 45.0)), start)

    def lose_answers(self, rng: random.Random) -> None:
        trouble = self._cluster.trouble
        one, other, third = rng.choice((0.0, 0.1)), rng.choice((0.05, 0.3)), rng.choice((0.0, 0.2))
        trouble.lost_request, trouble.lost_answer, trouble.late_request = one, other, third

        def mend() -> None:
            trouble.lost_request = trouble.lost_answer = trouble.late_request = 0.0

        self._last(rng.uniform(3, 30), mend)

    def slow_store(self, rng: random.Random) -> None:
        self._cluster.trouble.slow = rng.choice((0.05, 0.3, 1.5))
        self._last(rng.uniform(3, 30), lambda: setattr(self._cluster.trouble, "slow", 0.0))

    def stall_watch(self, rng: random.Random) -> None:
        name = rng.choice(self._cluster.members.hosts)
        self._note(f"watches on {name} stand still")
        self._cluster.trouble.stalled.add(name)

        def mend() -> None:
            self._cluster.trouble.stalled.discard(name)
            self._cluster.members.review()

        self._last(rng.uniform(2, 25), mend)

    def compact(self, rng: random.Random) -> None:
        """Sometimes while a watch is behind, whose member then fails: what it missed is gone."""
        keep = rng.choice((0, 1, 5, 50))
        if rng.random() < 0.4:
            self._compact(keep)
            return
        name = rng.choice(self._cluster.members.hosts)
        self._note(f"watches on {name} fall behind")
        self._cluster.trouble.stalled.add(name)

        def mend() -> None:
            self._compact(keep)
            self._cluster.members.kill(name)
            self._cluster.trouble.stalled.discard(name)
            later(0.5, self._cluster.members.start, name)

        self._last(rng.uniform(3, 20), mend)

    def _compact(self, keep: int) -> None:
        store = self._cluster.store
        asyncio.ensure_future(store.compact(max(1, store.revision - keep)))  # noqa: RUF006 - it never waits

    # ---- the network ----

    def break_streams(self, rng: random.Random) -> bool:
        agents = list(self._cluster.agents.values())
        for agent in agents if rng.random() < 0.3 else rng.sample(agents, min(1, len(agents))):
            for link in agent.links:
                link.sever()
        return bool(agents)

    def half_open(self, rng: random.Random) -> bool:
        agents = list(self._cluster.agents.values())
        if agents:
            for link in rng.choice(agents).links:
                link.half_open(agent=rng.random() < 0.5)
        return bool(agents)

    def slow_network(self, rng: random.Random) -> None:
        self._cluster.net.extra = rng.choice((0.05, 0.2, 1.0))
        self._last(rng.uniform(3, 40), lambda: setattr(self._cluster.net, "extra", 0.0))

    def cut_host(self, rng: random.Random) -> None:
        name = rng.choice(list(self._cluster.hosts))
        others = self._others(name)
        self._note(f"{name} is cut off")
        self._cut([(name, other) for other in others] + [(other, name) for other in others], rng)

    def cut_one_way(self, rng: random.Random) -> None:
        name = rng.choice(list(self._cluster.hosts))
        others = self._others(name)
        outward = rng.random() < 0.5
        self._note(f"{name} {'sends to' if outward else 'hears'} nobody")
        self._cut([(name, other) if outward else (other, name) for other in others], rng)

    def cut_pair(self, rng: random.Random) -> None:
        one, other = rng.sample(list(self._cluster.hosts), 2)
        self._note(f"{one} and {other} lose each other")
        self._cut([(one, other), (other, one)], rng)

    def _others(self, name: str) -> list[str]:
        return [other for other in [*self._cluster.hosts, USER] if other != name]

    def _cut(self, pairs: list[tuple[str, str]], rng: random.Random) -> None:
        net = self._cluster.net
        for pair in pairs:
            net.cut(*pair)

        def mend() -> None:
            for pair in pairs:
                net.mend(*pair)

        self._last(rng.choice((2.0, 8.0, 20.0, 45.0)), mend, hurts=True)

    # ---- hosts and agents ----

    def jump(self, rng: random.Random) -> None:
        host = self._some_host(rng)
        by = rng.choice((-30.0, -3.0, -0.5, 0.5, 3.0, 30.0))
        if abs(host.offset + by) > 90:
            by = -by
        host.offset += by
        host.jumped_at = asyncio.get_running_loop().time()
        self._note(f"the clock of {host.name} jumps by {by}")

    def kill_agent(self, rng: random.Random) -> bool:
        return self._kill_agent(self._some_host(rng).name, rng.uniform(0.1, 6.0), hurts=False)

    def kill_agent_long(self, rng: random.Random) -> bool:
        return self._kill_agent(self._some_host(rng).name, rng.uniform(10, 60), hurts=True)

    def kill_agent_at_write(self, rng: random.Random) -> bool:
        """Before one of its next writes to the journal."""
        name, left = self._some_host(rng).name, rng.randrange(1, 25)

        def look(agent: object) -> None:
            nonlocal left
            running = self._cluster.agents.get(name)
            if running is None or agent is not running:
                return
            left -= 1
            if left == 0:
                self._cluster.at_journal_write = lambda agent: None
                self.happened["an agent is killed at a write"] += 1
                self._kill_agent(name, rng.uniform(0.1, 5.0), hurts=False)

        self._cluster.at_journal_write = look
        return False

    def _kill_agent(self, name: str, seconds: float, *, hurts: bool) -> bool:
        runs = name in self._cluster.agents
        self._cluster.kill_agent(name)
        self._last(seconds, lambda: self._cluster.start_agent(name), hurts=hurts)
        return runs

    def freeze_agent(self, rng: random.Random) -> bool:
        agents = list(self._cluster.agents.values())
        if agents:
            self._freeze(rng.choice(agents).party, rng.choice((1.0, 5.0, 12.0, 25.0)), hurts=True)
        return bool(agents)

    def fill_disk(self, rng: random.Random) -> None:
        disk = self._some_host(rng).disk
        disk.is_full = True
        self._last(rng.uniform(2, 25), lambda: setattr(disk, "is_full", False))

    def slow_disk(self, rng: random.Random) -> None:
        disk = self._some_host(rng).disk
        disk.slow = rng.choice((0.1, 1.0, 3.0))
        self._last(rng.uniform(5, 40), lambda: setattr(disk, "slow", 0.0))

    def kill_host(self, rng: random.Random) -> bool:
        host = self._some_host(rng)
        runs = host.is_up
        self._kill_host(host.name, rng.choice((8.0, 25.0, 70.0, 130.0)))
        return runs

    def kill_host_at_start(self, rng: random.Random) -> bool:
        """Soon after the next container that is started, and back before anybody has missed it."""
        after, away = rng.choice((0.001, 0.05, 0.5, 2.0)), rng.uniform(4.0, 9.0)

        def look(host: Host) -> None:
            for other in self._cluster.hosts.values():
                other.on_start = lambda host: None
            self.happened["a host loses its power at a start"] += 1
            later(after, self._kill_host, host.name, away)

        for host in self._cluster.hosts.values():
            host.on_start = look
        return False

    def _kill_host(self, name: str, away: float) -> None:
        self._cluster.kill_host(name)
        self._last(away, lambda: self._cluster.start_host(name), hurts=True)

    # ---- containers ----

    def kill_container(self, rng: random.Random) -> bool:
        found = self._some_container(rng)
        if found is not None:
            host, container = found
            host.end(container, rng.choice((0, 1, 137)), oom=rng.random() < 0.2)
        return found is not None

    def kill_draining(self, rng: random.Random) -> bool:
        """The next that is told to leave, before or while its connections are waited for."""
        after = rng.choice((0.0, 0.02, 0.3, 1.0))

        def look(task: pb.Task) -> None:
            host = next((one for one in self._cluster.hosts.values() if one.node_id == task.node_id), None)
            container = host.containers.get(task.id) if host is not None else None
            if host is not None and container is not None and container.running:
                self._at_leave = None
                self.happened["a container dies while it drains"] += 1
                later(after, self._end_unless_told, host, container)

        self._at_leave = look
        return False

    def _end_unless_told(self, host: Host, container: Container) -> None:
        if not container.was_told:
            host.end(container, 1)

    def _leaves(self, kind: str, object_id: str, old: object, new: object) -> None:
        if self._at_leave is None or not isinstance(new, pb.Task) or not isinstance(old, pb.Task):
            return
        if new.leaving and not old.leaving:
            self._at_leave(new)

    def sicken(self, rng: random.Random) -> bool:
        found = self._some_container(rng)
        if found is not None:
            host, container = found
            seconds = rng.choice((3.0, 15.0, 40.0, 120.0))
            container.sick_until = asyncio.get_running_loop().time() + seconds
            self._note(f"a container on {host.name} falls ill", container.request.task_id)
            self._last(seconds, lambda: None, hurts=True)
        return found is not None

    def fail_images(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.images_fail = True
        self._last(rng.uniform(3, 40), lambda: setattr(troubles, "images_fail", False))

    def slow_images(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.images_slow = rng.choice((2.0, 15.0))
        self._last(rng.uniform(5, 40), lambda: setattr(troubles, "images_slow", 0.0))

    def refuse(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.kernel_refuses = True
        self._last(rng.choice((1.0, 6.0, 20.0)), lambda: setattr(troubles, "kernel_refuses", False), hurts=True)

    def hang(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.kernel_hangs = True
        self._last(rng.choice((1.0, 6.0, 20.0)), lambda: setattr(troubles, "kernel_hangs", False), hurts=True)

    def fail_runtime(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.creates_fail, troubles.starts_fail = rng.choice(((1, 0), (0, 1), (4, 0), (2, 2)))

        def mend() -> None:
            troubles.creates_fail = troubles.starts_fail = 0

        self._last(30.0, mend)

    def slow_host(self, rng: random.Random) -> None:
        troubles = self._some_host(rng).troubles
        troubles.work_slow = rng.choice((0.1, 0.5, 2.0))
        self._last(rng.uniform(3, 25), lambda: setattr(troubles, "work_slow", 0.0), hurts=True)

    # ---- helpers ----

    def _some_manager(self, rng: random.Random) -> str:
        """The leader, more often than not."""
        leader = self._cluster.leader()
        if leader is not None and rng.random() < 0.6:
            return leader.host.name
        return rng.choice(self._cluster.manager_hosts)

    def _some_host(self, rng: random.Random) -> Host:
        return self._cluster.hosts[rng.choice(list(self._cluster.hosts))]

    def _some_container(self, rng: random.Random) -> tuple[Host, Container] | None:
        running = [
            (host, container)
            for host in self._cluster.hosts.values()
            for container in host.containers.values()
            if container.running and not container.was_told
        ]
        return rng.choice(running) if running else None

    def _freeze(self, party: Party, seconds: float, *, hurts: bool) -> None:
        self._note(f"{party.name} is frozen")
        party.freeze()
        self._cluster.net.changed()

        def thaw() -> None:
            self._note(f"{party.name} goes on")
            party.thaw()
            self._cluster.net.changed()

        self._last(seconds, thaw, hurts=hurts)

    def _last(self, seconds: float, undo: Undo, *, hurts: bool = False) -> None:
        self._count += 1
        number = self._count
        if hurts:
            self._calm.begin()

        def over() -> None:
            if hurts:
                self._calm.end()
            undo()

        self._undo[number] = over
        later(seconds, self._over, number)

    def _over(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def _note(self, text: str, *about: str) -> None:
        self._cluster.trace.add(text, *about)
