"""What goes wrong with the network, agents, hosts and their containers."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.simulation.agent import AgentProcess
from tests.simulation.calm import Calm
from tests.simulation.cluster import Cluster
from tests.simulation.host import Container, Host
from tests.simulation.spells import Spells
from tests.simulation.user import HOST as USER
from tests.simulation.virtual import later, world_time

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

_FOR_A_PERMIT = (12.0, 20.0, 28.0, 34.0, 50.0, 70.0)  # seconds: a permit is over after 15, and the leader's for it 30

_LIT_AGAIN = 2.0  # seconds that an agent has to make another fuse


class HostWeather(Spells):
    def __init__(self, cluster: Cluster, calm: Calm) -> None:
        super().__init__(cluster, calm)
        self._at_leave: Callable[[pb.Task], None] | None = None
        self._at_release = False  # not when it is told to leave
        cluster.truth.listeners.append(self._leaves)

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
        self._note(f"{name} is cut off")
        self._cut(self._both_ways(name), rng)

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

    def cut_writer(self, rng: random.Random) -> bool:
        """The host of an exclusive task; sometimes for so long that it is replaced."""
        name = self._some_writer(rng)
        if name is not None:
            self._note(f"{name} is cut off, and has a writer")
            self._cut(self._both_ways(name), rng, rng.choice(_FOR_A_PERMIT))
        return name is not None

    def freeze_writer(self, rng: random.Random) -> bool:
        """Its agent."""
        agent = self._cluster.agents.get(self._some_writer(rng) or "")
        if agent is not None:
            self._freeze(agent.party, rng.choice(_FOR_A_PERMIT), hurts=True)
        return agent is not None

    def return_writer(self, rng: random.Random) -> bool:
        """The agent of an exclusive task is frozen until its tasks are just being given up, while etcd is slow or loses
        that."""
        name = self._some_writer(rng)
        agent = self._cluster.agents.get(name or "")
        if agent is None:
            return False
        self._freeze(agent.party, 60.0, hurts=True)
        node_id, listeners, trouble = agent.host.node_id, self._cluster.truth.listeners, self._cluster.trouble
        slow, lost = rng.choice(((0.0, 0), (0.3, 0), (1.0, 0), (0.0, 1), (0.0, 2), (0.0, 3)))

        def look(kind: str, object_id: str, old: object, new: object) -> None:
            if object_id != node_id or not isinstance(new, pb.Node) or not isinstance(old, pb.Node):
                return
            if new.permit_over and not old.permit_over and agent.party.frozen:
                self._note(f"{agent.party.name} goes on", node_id)
                agent.party.thaw()
                self._cluster.net.changed()
                trouble.slow = slow
                trouble.lose_writes(lost)

        def over() -> None:
            listeners.remove(look)
            trouble.slow = 0.0
            trouble.lose_writes(0)

        listeners.append(look)
        self._last(45.0, over, hurts=True)
        return True

    def kill_fuse(self, rng: random.Random) -> bool:
        """While there is an agent to make another: nobody else could. If that is gone by then, the container ends with
        them, for nobody could end it any more (docs/adr/0014)."""
        fuses = [
            (host, task_id, fuse)
            for name, host in self._cluster.hosts.items()
            for task_id, fuse in host.fuses.items()
            if name in self._cluster.agents and not self._cluster.agents[name].party.frozen
            if host.containers[task_id].running
        ]
        if not fuses:
            return False
        host, task_id, fuse = rng.choice(fuses)
        self._note(f"the fuse dies on {host.name}", task_id)
        fuse.kill()
        later(_LIT_AGAIN, self._end_with_its_fuse, host, host.containers[task_id])
        return True

    def _end_with_its_fuse(self, host: Host, container: Container) -> None:
        agent = self._cluster.agents.get(host.name)
        able = agent is not None and not agent.party.frozen and not host.troubles.work_slow
        if container.request.task_id not in host.fuses and not able:
            host.end(container, 137)

    def _some_writer(self, rng: random.Random) -> str | None:
        hosts = [name for name, host in self._cluster.hosts.items() if host.fuses]
        return rng.choice(hosts) if hosts else None

    def _both_ways(self, name: str, *but: str) -> list[tuple[str, str]]:
        others = [other for other in self._others(name) if other not in but]
        return [(name, other) for other in others] + [(other, name) for other in others]

    def _others(self, name: str) -> list[str]:
        return [other for other in [*self._cluster.hosts, USER] if other != name]

    def _cut(self, pairs: list[tuple[str, str]], rng: random.Random, seconds: float = 0.0) -> None:
        net = self._cluster.net
        for pair in pairs:
            net.cut(*pair)

        def mend() -> None:
            for pair in pairs:
                net.mend(*pair)

        self._last(seconds or rng.choice((2.0, 8.0, 20.0, 45.0)), mend, hurts=True)

    # ---- hosts and agents ----

    def jump(self, rng: random.Random) -> None:
        host = self._some_host(rng)
        by = rng.choice((-3600.0, -30.0, -3.0, -0.5, 0.5, 3.0, 30.0, 3600.0))
        if abs(host.offset + by) > 3700:
            by = -by
        host.offset += by
        host.jumped_at, host.jumped_by = world_time(), by
        self._note(f"the clock of {host.name} jumps by {by}")

    def kill_agent(self, rng: random.Random) -> bool:
        return self._kill_agent(self._some_host(rng).name, rng.uniform(0.1, 6.0), hurts=False)

    def kill_agent_long(self, rng: random.Random) -> bool:
        return self._kill_agent(self._some_host(rng).name, rng.uniform(10, 60), hurts=True)

    def kill_agent_at_write(self, rng: random.Random) -> bool:
        """Before one of its next writes to the journal; or any agent while it starts an exclusive task, to be back
        while the permit that it had is good."""
        name, left = self._some_host(rng).name, rng.randrange(1, 25)
        of_start = rng.random() < 0.4
        if of_start:
            left = rng.randrange(1, 3)

        def look(agent: AgentProcess) -> None:
            nonlocal left
            if agent.starts_writer() if of_start else agent is self._cluster.agents.get(name):
                left -= 1
                if left == 0:
                    self._cluster.at_journal_write = lambda agent: None
                    self.happened["an agent is killed at a write"] += 1
                    self._kill_agent(agent.host.name, rng.uniform(0.1, 5.0), hurts=False)

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
        """The next that is told to leave, or that is released: before or while its connections are waited for."""
        after, self._at_release = rng.choice((0.0, 0.02, 0.3, 1.0)), rng.random() < 0.6

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
        if (new.released and not old.released) if self._at_release else (new.leaving and not old.leaving):
            self._at_leave(new)

    def sicken(self, rng: random.Random) -> bool:
        found = self._some_container(rng)
        if found is not None:
            host, container = found
            seconds = rng.choice((3.0, 15.0, 40.0, 120.0))
            container.sick_until = world_time() + seconds
            self._note(f"a container on {host.name} falls ill", container.request.task_id)
            self._last(seconds, lambda: None, hurts=True)
        return found is not None

    def sicken_service(self, rng: random.Random) -> bool:
        """What it needs is away: none of its containers is well, and none that takes their place. More often than not
        a service whose policy gives it none, where there is one: what is ill then stays."""
        probed = [
            service.spec
            for service in self._cluster.truth.services.values()
            if service.spec.task.container.HasField("probe")
        ]
        lasting = [one for one in probed if one.task.restart.condition == spec.RESTART_CONDITION_NONE]
        chosen = lasting if lasting and rng.random() < 0.7 else probed
        if not chosen:
            return False
        name, seconds = rng.choice(sorted(one.name for one in chosen)), rng.choice((15.0, 30.0, 60.0))
        self._note(f"all of {name} falls ill")
        until = world_time() + seconds
        for host in self._cluster.hosts.values():
            host.ill_until[name] = until
            for container in host.containers.values():
                if container.request.service_name == name:
                    container.sick_until = max(container.sick_until, until)

        def mend() -> None:
            for host in self._cluster.hosts.values():
                host.ill_until.pop(name, None)

        self._last(seconds, mend, hurts=True)
        return True

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
        host = self._some_host(rng)
        host.troubles.work_slow = slow = rng.choice((0.1, 0.5, 2.0))
        seconds = rng.uniform(3, 25)
        host.slow_until = world_time() + seconds + slow  # what was begun at its end may take as long again
        self._last(seconds, lambda: setattr(host.troubles, "work_slow", 0.0), hurts=True)
