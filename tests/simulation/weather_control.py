"""What goes wrong with managers and with etcd."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from tests.simulation.manager import ManagerProcess
from tests.simulation.spells import Spells
from tests.simulation.virtual import later

from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.store.base import Event, EventKind


class ControlWeather(Spells):
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
        """It has no time for its timers and does not reach etcd: it does not notice that its lease has run out. Agents
        change to and fro between it and the one that leads instead."""
        manager = self._cluster.leader()
        if manager is None:
            return False
        self._note(f"the manager on {manager.host.name} is deaf to its timers, and etcd is out of its reach")
        manager.party.turn_deaf()
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
            manager.party.hear()
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
        """They arrive when another one leads already, or just between the two: the next leader does first whatever the
        one before had to do, and afterwards all that it wrote is overtaken."""
        manager = self._cluster.leader()
        if manager is None:
            return False
        self._note(f"writes of the manager on {manager.host.name} are late")
        dies, lasts = rng.random() < 0.75, rng.uniform(1.0, 4.0)
        if dies and rng.random() < 0.8:
            manager.client.delay = self._at_next_term(rng)
            lasts *= 2
        else:
            late = rng.uniform(5.5, 12.0)
            manager.client.delay = lambda arrive: later(late, arrive)

        def end() -> None:
            manager.client.delay = None
            if dies and self._cluster.managers.get(manager.host.name) is manager:
                self._cluster.kill_manager(manager.host.name)
                later(rng.uniform(0.3, 9.0), self._cluster.start_manager, manager.host.name)

        self._last(lasts, end)
        return True

    def _at_next_term(self, rng: random.Random) -> Callable[[Callable[[], None]], object]:
        """Takes writes that are to happen when the leader's key goes, or when it is the next one's."""
        held: list[Callable[[], None]] = []
        awaited = rng.choice((EventKind.DELETE, EventKind.PUT))
        observers = self._cluster.store.observers

        def observe(revision: int, events: Sequence[Event]) -> None:
            if any(event.entry.key == LEADER_KEY and event.kind is awaited for event in events):
                observers.remove(observe)
                for arrive in held:
                    later(rng.uniform(0.0, 0.01), arrive)

        observers.append(observe)
        return held.append

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

    def lose_writes(self, rng: random.Random) -> None:
        """A few, one after the other, and nothing else: whoever leads goes on leading, and nobody is looked at anew. Or
        one with all its repetitions, so that whoever wrote it has failed."""
        trouble = self._cluster.trouble
        count, of_user = rng.choice((1, 1, 3, 4, 6)), rng.random() < 0.4
        if not of_user and rng.random() < 0.5:
            trouble.lose_writes(rng.choice((3, 4, 7)), of_one=True)
        else:
            trouble.lose_writes(count, of_user=of_user)
        self._last(20.0, lambda: trouble.lose_writes(0))

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
