"""Since when nothing has stood in the way of the leader, or of a host: what they do at once otherwise, they must do
then. Outside of faults `calm` knows that, too; this is of each host by itself, so that it is known in a storm as well.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.agent import AgentProcess
from tests.simulation.cluster import Cluster
from tests.simulation.manager import ManagerProcess
from tests.simulation.virtual import world_time

LONGEST = 40.0  # seconds: the longest pause after a failed attempt is 30
SOONEST = 10.0


class Quiet:
    """`is_managed`: there is a leader and it can write. `look` is to be called often: it remembers."""

    def __init__(self, cluster: Cluster, is_managed: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._is_managed = is_managed
        self._led_since = self._trouble_since = 0.0
        self._leader: ManagerProcess | None = None
        self._term: object = None
        self._since: dict[str, float] = {}  # host → simulated seconds
        self._ways: dict[str, tuple[object, ...]] = {}  # host → its agent and the stream between it and the leader

    def look(self) -> None:
        now = world_time()
        leader = self._cluster.leader()
        term = leader.core.term if leader is not None else None
        if not self._is_managed() or leader is not self._leader or term is not self._term:
            self._hindered(now, anew=leader is not self._leader or term is not self._term)
            self._leader, self._term = leader, term
        elif leader is not None and leader.client.hindered_at > self._led_since:
            self._hindered(leader.client.hindered_at)
        for name in self._cluster.hosts:
            way = self._way(name)
            if not way or way != self._ways.get(name):
                self._since[name] = now
            self._ways[name] = way

    @property
    def leader(self) -> ManagerProcess | None:
        return self._leader if self._term is not None else None

    def led_for(self) -> float:
        """Seconds for which one leader has led, and has got all that it asked etcd for."""
        if self.leader is None:
            return 0.0
        return world_time() - self._led_since

    def is_retried(self) -> bool:
        """What had failed has been tried again: pauses between attempts double, so they are no longer than the trouble
        was."""
        return self.led_for() > min(LONGEST, SOONEST + self._led_since - self._trouble_since)

    def _hindered(self, at: float, *, anew: bool = False) -> None:
        if anew or at - self._led_since > LONGEST:
            self._trouble_since = at
        self._led_since = at

    def host_for(self, name: str) -> float:
        """Seconds for which this host has done what it was asked for, with one stream to the leader."""
        return world_time() - self._since.get(name, 0.0)

    def agent(self, name: str) -> AgentProcess | None:
        return self._cluster.agents.get(name)

    def _way(self, name: str) -> tuple[object, ...]:
        """Empty when something is in it."""
        host, agent, leader = self._cluster.hosts[name], self.agent(name), self._leader
        if leader is None or agent is None or agent.agent is None or agent.party.frozen or host.state is None:
            return ()
        if host.troubles.any() or host.disk.is_full or host.disk.slow or self._cluster.net.extra:
            return ()
        if not self._cluster.net.linked(name, leader.host.name):
            return ()
        links = [link for link in agent.links if link.is_whole and link.server_party is leader.party]
        return (agent, links[0]) if len(links) == 1 else ()
