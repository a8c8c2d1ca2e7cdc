"""Checks of exclusive tasks: one writer a slot, whatever happens; and each step of the argument in docs/adr/0014.

The numbers are the argument's, not the product's: what the product believes is not asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.simulation.checks.words import is_over
from tests.simulation.findings import Findings
from tests.simulation.truth import Truth
from tests.simulation.virtual import world_time

from pyswarm_core.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from tests.simulation.host import Container, Host

STOPPED, KILLED = 15.0, 25.0  # of its host's seconds, from the sending of the last heartbeat that was answered
SLACK = 0.05
DECIDED = 0.5  # from the decision to stop a container until its signal
REARMED = 3.0  # seconds after somebody has killed a fuse; not where everything is slow


class Writers:
    """Told by hosts of what happens to exclusive containers, and of what is stored."""

    def __init__(self, truth: Truth, findings: Findings) -> None:
        self.hosts: Mapping[str, Host] = {}
        self.hurt: Callable[[str], None] = lambda service_id: None  # told of services that had to stop
        self._truth = truth
        self._findings = findings
        self._bare_since: dict[str, float] = {}  # container without a fuse → since when
        self._lapsed: dict[str, float] = {}  # container whose permit was over → until when it may be told to stop
        truth.listeners.append(self._stored)

    def starts(self, host: Host, container: Container) -> None:
        """Before it does."""
        for where in self.hosts.values():
            for other in where.containers.values():
                if other is not container and other.running and _exclude(container.task, other.task):
                    self._findings.add(
                        "an exclusive slot has one writer",
                        f"{container.task.id} starts on {host.name} while {other.task.id} runs on {where.name}",
                        container.task.id, other.task.id, host.node_id, where.node_id,
                    )  # fmt: skip
        if not container.task.spec.exclusive:
            return
        stored = self._truth.tasks.get(container.task.id)
        if stored is None or is_over(stored):
            why = "which nobody has asked for" if stored is None else "which was given up"
            self._say("an exclusive task is started only while it is wanted", host, container, why)
        if container.task.id not in host.fuses:
            self._say("no exclusive container runs without a fuse", host, container, "is started without one")

    def stops(self, host: Host, container: Container) -> bool:
        """Whether its agent may stop it without a release, and without waiting: its permit is over, or was when it was
        first told to stop."""
        if not container.task.spec.exclusive:
            return False
        if _has_lapsed(host):
            self._lapsed[container.task.id] = math.inf
        if self._lapsed.get(container.task.id, -math.inf) < world_time():
            return False
        self.hurt(container.task.service_id)
        return True

    def permitted(self, host: Host) -> None:
        """It just gets another permit. What was over may have been decided upon, and be told to stop in a moment."""
        if _has_lapsed(host):
            until = world_time() + DECIDED
            self._lapsed.update((i, max(until, self._lapsed.get(i, until))) for i in host.containers)

    def extends(self, host: Host, until: float) -> None:
        """The host's permit is written down."""
        if until > host.permitted + KILLED + SLACK:
            self._findings.add(
                "a permit counts from the sending of what was answered",
                f"{host.name} extends it to {until:.3f}; the last one was sent at {host.permitted:.3f}",
                host.node_id,
            )

    def permits(self, manager: str, host: str) -> None:
        """A manager has answered a heartbeat with a permit, and when it heard that it did not lead, or the node was
        down."""
        self._findings.add("permits are the leader's, for nodes that are not down", f"{manager} gave one to {host}")

    def look(self) -> None:
        """Once a second."""
        now, bare = world_time(), {}
        for host in self.hosts.values():
            for task_id, container in host.containers.items():
                if not container.running or not container.task.spec.exclusive:
                    continue
                over = host.boot_time() - host.permitted - KILLED
                if over > 1.0:
                    text = f"has run for {over:.1f} s without a permit"
                    self._say("no exclusive container outlives its permit", host, container, text)
                if task_id not in host.fuses and not host.troubles.work_slow:
                    since = bare[task_id] = self._bare_since.get(task_id, now)
                    if now - since > REARMED:
                        self._say("no exclusive container runs without a fuse", host, container, "has none")
        self._bare_since = bare

    def _stored(self, kind: str, object_id: str, old: object, new: object) -> None:
        if isinstance(new, pb.Task) and isinstance(old, pb.Task) and new.spec.exclusive:
            if is_over(new) and not is_over(old):
                self._is_over(new)
        elif isinstance(new, pb.Node) and isinstance(old, pb.Node) and old.permit_over and not new.permit_over:
            for task in self._truth.tasks_of_node(new.id):
                if task.spec.exclusive and pb.TASK_STATE_ASSIGNED <= task.status.state < pb.TASK_STATE_COMPLETE:
                    self._findings.add(
                        "a node returns only when its exclusive tasks are over",
                        f"{new.id} does, and {task.id} is not",
                        new.id, task.id,
                    )  # fmt: skip

    def _is_over(self, task: pb.Task) -> None:
        for host in self.hosts.values():
            container = host.containers.get(task.id)
            if container is not None and container.running:
                self._say("an exclusive task is over only when it has ended", host, container, "runs, and is stored so")

    def _say(self, invariant: str, host: Host, container: Container, text: str) -> None:
        task = container.task
        self._findings.add(
            invariant, f"{task.service_name}.{task.slot} {task.id} on {host.name} {text}", task.id, host.node_id
        )


def _has_lapsed(host: Host) -> bool:
    return host.boot_time() >= host.permitted + STOPPED - SLACK


def _exclude(one: pb.Task, other: pb.Task) -> bool:
    """By the service's name: who removes and deploys it again still has one volume."""
    same = (one.service_name, one.slot) == (other.service_name, other.slot)
    return same and (one.spec.exclusive or other.spec.exclusive)
