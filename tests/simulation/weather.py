"""Everything that goes wrong. Each fault begins, lasts, and is undone; the number it comes with decides the rest."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.calm import Calm
from tests.simulation.cluster import Cluster
from tests.simulation.virtual import later
from tests.simulation.weather_control import ControlWeather
from tests.simulation.weather_hosts import HostWeather


class Weather(ControlWeather, HostWeather):
    """And what hits both sides at once."""

    def __init__(self, cluster: Cluster, calm: Calm) -> None:
        super().__init__(cluster, calm)
        self._is_over = False
        self.faults: dict[str, Callable[[random.Random], bool | None]] = {
            "a manager is killed": self.kill_manager,
            "a manager is killed at a write": self.kill_manager_at_write,
            "a manager is frozen": self.freeze_manager,
            "a leader loses time and etcd": self.lose_time,
            "a leader's writes are late": self.delay_writes,
            "a member is killed": self.kill_member,
            "etcd loses its quorum": self.kill_members,
            "etcd loses answers": self.lose_answers,
            "writes are lost": self.lose_writes,
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
            "a writer is cut off": self.cut_writer,
            "a writer's agent is frozen": self.freeze_writer,
            "a writer's agent is back as it is given up": self.return_writer,
            "a writer stays with an old leader": self.strand_writer,
            "a fuse dies": self.kill_fuse,
            "a container dies": self.kill_container,
            "a container dies while it drains": self.kill_draining,
            "a container falls ill": self.sicken,
            "a service falls ill": self.sicken_service,
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

    def strand_writer(self, rng: random.Random) -> bool:
        """The host of an exclusive task hears only a leader that does not notice that another one leads; and then for
        so long nobody that it is replaced."""
        name, leader = self._some_writer(rng), self._cluster.leader()
        if name is None or leader is None or not self.lose_time(rng):
            return False
        self._note(f"{name} reaches only {leader.host.name}")
        pairs = self._both_ways(name, leader.host.name)
        self._cut(pairs, rng, rng.choice((30.0, 60.0)))
        if leader.host.name != name:
            both = [(name, leader.host.name), (leader.host.name, name)]
            later(rng.uniform(5.0, 20.0), lambda: self._is_over or self._cut(both, rng, 50.0))
        return True

    def end(self) -> None:
        """All that lasts is over now, and everything that was killed runs."""
        self._is_over = True
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
