"""A spell of bad weather: it begins, lasts, and is undone; and whom it can hit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.calm import Calm
from tests.simulation.cluster import Cluster
from tests.simulation.host import Container, Host
from tests.simulation.virtual import Party, later

Undo = Callable[[], None]


class Spells:
    """What all faults are made of."""

    def __init__(self, cluster: Cluster, calm: Calm) -> None:
        self._cluster = cluster
        self._calm = calm
        self._undo: dict[int, Undo] = {}
        self._count = 0
        self.happened: Counter[str] = Counter()

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
