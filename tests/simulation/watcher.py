"""What must never be done on a host, looked at when it is about to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.simulation.checks.writers import Writers
from tests.simulation.findings import Findings
from tests.simulation.host import Container, Host
from tests.simulation.truth import Truth
from tests.simulation.virtual import world_time

from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.state import HostState


class HostWatcher:
    """A `host.Watcher`, `agent.Ears` and `manager.Judge`."""

    def __init__(self, truth: Truth, findings: Findings, writers: Writers) -> None:
        self.hosts: Mapping[str, Host] = {}
        self.starts: Counter[str] = Counter()
        self.released_at: Mapping[str, float] = {}
        self._truth = truth
        self._findings = findings
        self._writers = writers

    # ---- a host's ----

    def started(self, host: Host, container: Container) -> None:
        task_id = container.request.task_id
        self.starts[task_id] += 1
        self._writers.starts(host, container)
        if self.starts[task_id] > 1:
            self._findings.add("a task id starts at most once", f"{task_id} is started again on {host.name}", task_id)
        task = self._truth.tasks.get(task_id)
        if task is None:
            return  # a successor that nobody knows yet, or one that is gone and will be told
        if task.node_id != host.node_id:
            self._findings.add(
                "a task runs on its own node",
                f"{task_id} belongs to {task.node_id}, and is started on {host.name}",
                task_id,
            )
        early = task.desired_state < pb.TASK_STATE_RUNNING and not 0 < task.start_after <= host.now()
        if early:
            self._findings.add("a task is started when it is told to", f"{task_id} was told to wait at READY", task_id)
        for port in task.spec.host_ports:
            for other_id, other in host.containers.items():
                held = self._truth.tasks.get(other_id)
                if other is container or not other.running or held is None:
                    continue
                if held.status.state == pb.TASK_STATE_ORPHANED:
                    continue  # the user removed its node by force, and it has come back
                if other_id == derived_id("successor", task.predecessor_id, "1"):
                    continue  # its host filled the slot while a new leader did so, too; one of them goes
                if any((p.protocol, p.published) == (port.protocol, port.published) for p in held.spec.host_ports):
                    self._findings.add(
                        "a host port has one holder",
                        f"{task_id} is started while {other_id} holds {port.published}", task_id, other_id,
                    )  # fmt: skip

    def _is_gone(self, service_id: str) -> bool:
        """Its agent may have been told, and have been killed before its kernel was."""
        service = self._truth.services.get(service_id)
        return not service_id.startswith("host:") and (service is None or service.removing)

    def told_to_stop(self, host: Host, container: Container, signal: str) -> None:
        """What may be sent connections is stopped only when it was released, or when nobody knows it any more."""
        task_id = container.request.task_id
        task = self._truth.tasks.get(task_id)
        self._grace(host, container, signal)
        if self._writers.stops(host, container) or task is None or task.node_id != host.node_id:
            return
        if task.released:
            self._drained(host, container, task)
            return
        served = task.status.timings.healthy_at > 0 or task.status.state >= pb.TASK_STATE_RUNNING
        if served:
            self._findings.add(
                "what serves is stopped only when it is released", f"{task_id} gets {signal} on {host.name}", task_id
            )
        elif task.desired_state < pb.TASK_STATE_SHUTDOWN and not _may_be_given_up(container):
            self._findings.add("what nobody told to stop runs on", f"{task_id} gets {signal} on {host.name}", task_id)

    def _grace(self, host: Host, container: Container, signal: str) -> None:
        """It is killed only after it was asked, and had the time to obey."""
        now, spec = world_time(), container.request.container
        if signal != "KILL" or now < host.slow_until or container.asked_slowly:
            return  # on a slow host the first signal may take longer than the grace, which counts from its sending off
        grace = spec.stop_grace if spec.HasField("stop_grace") else 10.0
        asked = container.asked_at
        if asked is None or now - asked < host.shortest(grace) - 0.2:
            since = "never" if asked is None else f"{now - asked:.1f} s ago"
            self._findings.add(
                "a container has its grace", f"{container.request.task_id} is killed; asked {since}",
                container.request.task_id,
            )  # fmt: skip

    def _drained(self, host: Host, container: Container, task: pb.Task) -> None:
        """Open connections have the drain timeout, from the release on."""
        now = world_time()
        released = self.released_at.get(task.id)
        is_orphan = task.status.state == pb.TASK_STATE_ORPHANED
        if container.asked_at is not None or released is None or is_orphan or now - host.jumped_at < 60:
            return
        timeout = task.spec.drain_timeout if task.spec.HasField("drain_timeout") else 10.0
        still = sum(host.open(address.address) for address in task.addresses)
        if still and task.status.timings.healthy_at and now - released < host.shortest(timeout) - 0.2:
            self._findings.add(
                "open connections have the drain timeout",
                f"{task.id} is stopped {now - released:.1f} s after its release, with {still} open",
                task.id,
            )

    def extends(self, host: Host, until: float) -> None:
        self._writers.extends(host, until)

    def permitted(self, host: Host) -> None:
        self._writers.permitted(host)

    def linked(self, host: Host, task_id: str, addresses: tuple[str, ...]) -> None:
        for other in self.hosts.values():
            if not other.is_up or other.node_id not in self._truth.nodes:
                continue
            for holder, held in other.links.items():
                if holder != task_id and not set(held).isdisjoint(addresses):
                    self._findings.add(
                        "an address is held by one task",
                        f"{task_id} on {host.name} gets {addresses}, and {holder} on {other.name} has {held}",
                        task_id, holder,
                    )  # fmt: skip

    def loads(self, host: Host, state: HostState) -> None:
        """An agent that has started again leaves the balancer as it was until it is told otherwise."""
        if host.is_told or host.state is None or host.forgot:
            return
        running = {
            task.service_id
            for task_id, container in host.containers.items()
            if container.running and (task := self._truth.tasks.get(task_id)) is not None
        }
        lost = [
            service.name
            for key, service in host.state.services.items()
            if key not in state.services
            and not self._is_gone(key)
            # A port of this host goes with its task, which may have ended while there was no agent.
            and (not key.startswith("host:") or key.removeprefix("host:") in running)
        ]
        if lost:
            self._findings.add(
                "a restarted agent keeps what is balanced", f"{host.name} forgets {', '.join(lost)}", host.node_id
            )

    # ---- an agent's ----

    def obeyed_stale(self, host: Host, fence: wire.Fence, newest: wire.Fence) -> None:
        self._findings.add(
            "a deposed leader is not obeyed",
            f"{host.name} obeyed {fence.leader_revision}/{fence.revision} after "
            f"{newest.leader_revision}/{newest.revision}",
            host.node_id,
        )

    # ---- a manager's ----

    def wrote_without_leading(self, manager: str, keys: Sequence[str]) -> None:
        self._findings.add(
            "a deposed leader writes nothing",
            f"the manager on {manager} wrote {', '.join(keys[:4])}",
            *(key.rpartition("/")[2] for key in keys),
        )


def _may_be_given_up(container: Container) -> bool:
    """Its probe may not have passed in the time that it had."""
    return container.kind in ("sick", "flaky", "slow") or container.sick_until > 0
