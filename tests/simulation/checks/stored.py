"""Checks of every write of the cluster's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.simulation.findings import Findings
from tests.simulation.host import Host
from tests.simulation.truth import Truth

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.tasks import is_terminal, is_wanted

Check = Callable[[str, str, Stored | None, Stored | None], None]

_ENDED_WELL = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK)


class StoredChecks:
    def __init__(self, truth: Truth, findings: Findings, hosts: Mapping[str, Host]) -> None:
        self._truth = truth
        self._findings = findings
        self._hosts = {host.node_id: host for host in hosts.values()}
        self._task_ids: dict[str, None] = {}
        self._holders: dict[tuple[str, str], str] = {}
        self._held: dict[str, set[tuple[str, str]]] = {}
        self._spec_before: dict[str, spec.ServiceSpec] = {}  # rollout → the service's spec before it
        self._numbers: dict[int, str] = {}
        self._rollouts: dict[str, None] = {}
        truth.listeners.append(self.look)

    def look(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        if kind == "task":
            self._task(object_id, old, new)  # type: ignore[arg-type]
        elif kind == "service":
            self._service(old, new)  # type: ignore[arg-type]
        elif kind == "rollout":
            self._rollout(old, new)  # type: ignore[arg-type]
        elif kind == "node" and isinstance(new, pb.Node):
            self._node(new)

    # ---- tasks ----

    def _task(self, task_id: str, old: pb.Task | None, new: pb.Task | None) -> None:
        self._addresses(task_id, new)
        if new is None:
            assert old is not None
            if not is_terminal(old) or not old.addresses_free:
                self._say("a task is forgotten only when it is over and its addresses are free", old)
            return
        if old is None:
            if task_id in self._task_ids:
                self._say("a task id is used once", new)
            self._task_ids[task_id] = None
            self._surge(new)
            return
        self._advances(old, new)
        if new.released and not old.released:
            self._release(new)

    def _advances(self, old: pb.Task, new: pb.Task) -> None:
        wrong = [
            name
            for name, is_wrong in (
                ("its desired state", new.desired_state < old.desired_state),
                ("its state", new.status.state < old.status.state),
                ("leaving", new.leaving < old.leaving),
                ("released", new.released < old.released),
                ("addresses_free", new.addresses_free < old.addresses_free),
                ("its spec", new.spec != old.spec),
                ("its place", (new.service_id, new.slot) != (old.service_id, old.slot)),
                ("its node", bool(old.node_id) and new.node_id != old.node_id),
                ("its end", is_terminal(old) and new.status.state != old.status.state),
            )
            if is_wrong
        ]
        if wrong:
            self._say("task states only advance", new, f"went back: {', '.join(wrong)}")

    def _addresses(self, task_id: str, new: pb.Task | None) -> None:
        is_held = new is not None and not new.addresses_free
        held = {(a.network_id, a.address) for a in new.addresses} if new is not None and is_held else set()
        before = self._held.pop(task_id, set())
        if held:
            self._held[task_id] = held
        for place in before - held:
            if self._holders.get(place) == task_id:
                del self._holders[place]
        for place in sorted(held - before):
            other = self._holders.get(place)
            if other is not None and other != task_id:
                former = self._truth.tasks.get(other)
                # One transaction may move an address from a task to its successor: look at how it ends.
                if former is not None and not former.addresses_free and place in _places(former):
                    self._findings.add(
                        "an address is held by one task", f"{place[1]} is held by {other} and {task_id}", task_id, other
                    )
            self._holders[place] = task_id

    def _release(self, task: pb.Task) -> None:
        """When it is released, no balancer of a live node has it, and its owner redirects."""
        if task.status.state == pb.TASK_STATE_ORPHANED or task.node_id not in self._truth.nodes:
            return
        addresses = {a.address for a in task.addresses}
        for node in self._truth.nodes.values():
            host = self._hosts.get(node.id)
            if host is None or host.state is None or node.state == pb.NODE_STATE_DOWN or not node.serving:
                continue
            for service in host.state.services.values():
                if service.service_id == task.service_id and not addresses.isdisjoint(service.backends):
                    self._say("no task is released that a live node's balancer still has", task, f"{host.name} has it")
        owner = self._hosts.get(task.node_id)
        node = self._truth.nodes.get(task.node_id)
        served = task.status.state == pb.TASK_STATE_RUNNING or task.balanced_at > 0
        lives = owner is not None and owner.is_up and owner.state is not None and task.id in owner.links
        if not (served and lives and node is not None and node.state != pb.NODE_STATE_DOWN and node.serving):
            return
        if not is_terminal(task) and addresses.isdisjoint(owner.redirects):  # type: ignore[union-attr]
            self._say("a task is released only when its owner redirects", task)

    def _surge(self, task: pb.Task) -> None:
        """A new task does not make more of them than the policy allows."""
        service = self._truth.services.get(task.service_id)
        if service is None or (task.predecessor_id and task.status.state >= pb.TASK_STATE_ACCEPTED):
            return  # a successor that an agent has made
        nodes = self._truth.nodes
        size = len(nodes) if service.spec.mode == spec.SERVICE_MODE_GLOBAL else service.spec.replicas
        policies = (service.spec.update, service.spec.rollback, service.previous_spec.update)
        surge = max(policy.parallelism or size for policy in policies)
        wanted = [
            one
            for one in self._truth.tasks_of_service(service.id)
            if is_wanted(one)
            and not is_terminal(one)
            and (not one.node_id or (one.node_id in nodes and nodes[one.node_id].state != pb.NODE_STATE_DOWN))
        ]
        if len(wanted) > size + max(1, surge):
            self._say("live tasks ≤ replicas + surge", task, f"{len(wanted)} > {size} + {surge}", service.id)

    # ---- services ----

    def _service(self, old: pb.Service | None, new: pb.Service | None) -> None:
        if new is None or old is None:
            return
        if new.spec_version < old.spec_version:
            self._findings.add("an acknowledged deploy survives", "a service's version went back", new.id)
        if new.rollout_id != old.rollout_id:
            self._spec_before[new.rollout_id] = old.spec
        elif new.spec != old.spec and new.spec != self._spec_before.get(new.rollout_id):
            self._findings.add(
                "a failed update ends where it began", f"{new.spec.name} is rolled back to something else", new.id
            )

    def knows_rollout(self, rollout_id: str) -> bool:
        """It is, or was, stored."""
        return rollout_id in self._rollouts

    def _rollout(self, old: pb.Rollout | None, new: pb.Rollout | None) -> None:
        if new is not None:
            self._rollouts[new.id] = None
        if old is None or new is None:
            return
        if old.state not in _ENDED_WELL and new.state != old.state:
            self._findings.add(
                "a rollout ends once",
                f"{new.service_name}: {pb.RolloutState.Name(old.state)} became {pb.RolloutState.Name(new.state)}",
                new.id,
                new.service_id,
            )
        if new.state == pb.ROLLOUT_STATE_ROLLED_BACK and old.state != new.state:
            service = self._truth.services.get(new.service_id)
            before = self._spec_before.get(new.id)
            if service is not None and service.rollout_id == new.id and before is not None and service.spec != before:
                self._findings.add("a failed update ends where it began", f"{new.service_name} is another", service.id)

    # ---- nodes ----

    def _node(self, node: pb.Node) -> None:
        owner = self._numbers.setdefault(node.number, f"{node.id} {node.created_at}")
        if owner != f"{node.id} {node.created_at}":
            self._findings.add("a node's number is given once", f"{node.number}: {owner} and {node.id}", node.id)

    def _say(self, invariant: str, task: pb.Task, text: str = "", *about: str) -> None:
        self._findings.add(invariant, f"{task.service_name}.{task.slot} {task.id} {text}", task.id, *about)


def _places(task: pb.Task) -> set[tuple[str, str]]:
    return {(a.network_id, a.address) for a in task.addresses}
