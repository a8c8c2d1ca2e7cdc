"""A cluster with everything that looks at it: all checks, connections all the time, and a user."""

from __future__ import annotations

import asyncio

from tests.simulation.calm import Calm
from tests.simulation.checks.prompt import Prompt
from tests.simulation.checks.rollouts import RolloutChecks
from tests.simulation.checks.stored import StoredChecks
from tests.simulation.checks.sweep import Sweep
from tests.simulation.checks.taken import TakenChecks
from tests.simulation.checks.traffic import Traffic
from tests.simulation.cluster import Cluster
from tests.simulation.host import Container, Host
from tests.simulation.user import User
from tests.simulation.virtual import VirtualLoop

from pyswarm_core.v1 import objects_pb2 as pb


class Checked:
    """`close` when it is over."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.calm = Calm()
        stored = StoredChecks(cluster.truth, cluster.findings, cluster.hosts)
        TakenChecks(cluster.truth, cluster.findings, cluster.hosts)
        RolloutChecks(cluster.truth, cluster.findings)
        cluster.watcher.released_at = stored.released_at
        cluster.writers.hurt = self.calm.hurt
        sweep = Sweep(cluster, self.calm, self._is_managed)
        prompt = Prompt(cluster, self._is_managed)
        self.traffic = Traffic(cluster, self.calm, sweep)
        self.user = User(cluster, stored)
        for host in cluster.hosts.values():
            host.on_end = self._ended
        cluster.truth.listeners.append(self._changed)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.on_spin = self._spins
        self._running = [asyncio.ensure_future(work) for work in (sweep.run(), prompt.run(), self.traffic.run())]

    def close(self) -> None:
        for task in self._running:
            task.cancel()

    def _is_managed(self) -> bool:
        cluster = self._cluster
        leader = cluster.leader()
        trouble = cluster.trouble
        return (
            leader is not None
            and not leader.party.frozen
            and cluster.members.leader is not None
            and not (trouble.lost_answer or trouble.late_request or trouble.slow or trouble.stalled)
            and not cluster.net.extra
        )

    def _ended(self, host: Host, container: Container) -> None:
        if not container.was_told:
            task = self._cluster.truth.tasks.get(container.request.task_id)
            if task is not None:
                self.calm.hurt(task.service_id)

    def _changed(self, kind: str, object_id: str, old: object, new: object) -> None:
        if isinstance(new, pb.Task) and (new.status.health == pb.HEALTH_UNHEALTHY or _could_not_start(new)):
            self.calm.hurt(new.service_id)
        elif kind == "node" and new is None:
            self.calm.disturb()  # the user has removed it while it ran

    def _spins(self) -> None:
        leader = self._cluster.leader()
        term = leader.core.term if leader is not None else None
        keys = sorted(term.loops.queue._due) + sorted(term.loops.queue._running) if term is not None else []
        self._cluster.findings.add("time passes", f"something is done over and over; the leader's keys: {keys}")


def _could_not_start(task: pb.Task) -> bool:
    """Not what its image does, but its host: the disk was full."""
    return task.status.state == pb.TASK_STATE_FAILED and not task.status.timings.started_at
