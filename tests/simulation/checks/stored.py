"""Checks of every write about tasks and rollouts. What they compare with kernels is as it is at that moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tests.simulation.checks.lately import Lately
from tests.simulation.checks.words import LATE, is_live, is_over, is_wanted, places
from tests.simulation.findings import Findings
from tests.simulation.host import Host
from tests.simulation.truth import Truth
from tests.simulation.virtual import world_time

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

OFTEN, MOST_TASKS = 10.0, 40  # seconds, and tasks that one version of a service may be given in so many
_ACTIVE = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK)


class StoredChecks:
    def __init__(self, truth: Truth, findings: Findings, hosts: Mapping[str, Host]) -> None:
        self._truth = truth
        self._findings = findings
        self._hosts = {host.node_id: host for host in hosts.values()}
        self._task_ids: dict[str, None] = {}
        self._created: dict[tuple[str, int], deque[float]] = {}  # service, version → when its last tasks were made
        self._holders: dict[tuple[str, str], str] = {}
        self._held: dict[str, set[tuple[str, str]]] = {}
        self._room = Lately(LATE)  # service → how many live tasks it may have
        self._spec_before: dict[str, spec.ServiceSpec] = {}  # rollout → the service's spec before it
        self._rollouts: dict[str, None] = {}
        self.released_at: dict[str, float] = {}  # task → simulated seconds
        truth.listeners.append(self.look)

    def look(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        if kind == "task":
            self._task(object_id, old, new)  # type: ignore[arg-type]
        elif kind == "service":
            self._service(old, new)  # type: ignore[arg-type]
        elif kind == "rollout":
            self._rollout(old, new)  # type: ignore[arg-type]

    def knows_rollout(self, rollout_id: str) -> bool:
        """It is, or was, stored."""
        return rollout_id in self._rollouts

    # ---- tasks ----

    def _task(self, task_id: str, old: pb.Task | None, new: pb.Task | None) -> None:
        self._addresses(task_id, new)
        if new is None:
            assert old is not None
            if not is_over(old) or not old.addresses_free:
                self._say("a task is forgotten only when it is over and its addresses are free", old)
            return
        if old is None:
            if task_id in self._task_ids:
                self._say("a task id is used once", new)
            self._task_ids[task_id] = None
            self._surge(new)
            self._pace(new)
            return
        self._advances(old, new)
        if new.balanced_at and not old.balanced_at:
            self._balanced(new)
        if new.released and not old.released:
            self.released_at[task_id] = world_time()
            self._release(new)
        if new.addresses_free and not old.addresses_free:
            self._free(new)

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
                ("its end", is_over(old) and new.status.state != old.status.state),
            )
            if is_wrong
        ]
        if wrong:
            self._say("task states only advance", new, f"went back: {', '.join(wrong)}")

    def _addresses(self, task_id: str, new: pb.Task | None) -> None:
        held = places(new) if new is not None else set()
        before = self._held.pop(task_id, set())
        if held:
            self._held[task_id] = held
        for place in before - held:
            if self._holders.get(place) == task_id:
                del self._holders[place]
        for place in sorted(held - before):
            other = self._holders.get(place)
            former = self._truth.tasks.get(other) if other is not None and other != task_id else None
            # One transaction may move an address from a task to its successor: look at how it ends.
            if other is not None and former is not None and place in places(former):
                self._findings.add(
                    "an address is held by one task", f"{place[1]} is held by {other} and {task_id}", task_id, other
                )
            self._holders[place] = task_id

    def _having(self, task: pb.Task, *, live: bool) -> list[str]:
        """Hosts of registered nodes (`live`: that are waited for) whose balancer sends to the task."""
        addresses = {a.address for a in task.addresses}
        found = []
        for node in self._truth.nodes.values():
            host = self._hosts.get(node.id)
            if host is None or host.state is None or (live and not is_live(node)):
                continue
            service = host.state.services.get(task.service_id)
            if service is not None and not addresses.isdisjoint(service.backends):
                found.append(host.name)
        return found

    def _release(self, task: pb.Task) -> None:
        """When it is released, no balancer of a live node has it, and its owner redirects."""
        if task.status.state == pb.TASK_STATE_ORPHANED or task.node_id not in self._truth.nodes:
            return
        if having := self._having(task, live=True):
            self._say("no task is released that a live node's balancer still has", task, f"{having} have it")
        owner = self._hosts.get(task.node_id)
        served = task.status.state == pb.TASK_STATE_RUNNING or task.balanced_at > 0
        if owner is None or owner.state is None or task.id not in owner.links or is_over(task) or not served:
            return
        if (
            is_live(self._truth.nodes[task.node_id])
            and not {a.address for a in task.addresses} & owner.redirects.keys()
        ):
            self._say("a task is released only when its owner redirects", task)

    def _free(self, task: pb.Task) -> None:
        if having := self._having(task, live=False):
            self._say("an address is free only when no registered node sends to it", task, f"{having} do")

    def _balanced(self, task: pb.Task) -> None:
        having = self._having(task, live=True)
        for node in self._truth.nodes.values():
            host = self._hosts.get(node.id)
            if host is None or host.state is None or not is_live(node) or host.name in having:
                continue
            if node.id == task.node_id:
                continue  # its own host may know already that it has ended
            service = host.state.services.get(task.service_id)
            if service is None or service.vips or service.published:
                self._say("a task counts when every live node balances it", task, f"{host.name} does not")

    def _pace(self, task: pb.Task) -> None:
        """Tasks that cannot live are not made one after the other."""
        now = world_time()
        created = self._created.setdefault((task.service_id, task.spec_version), deque(maxlen=MOST_TASKS))
        if len(created) == MOST_TASKS and now - created[0] < OFTEN:
            self._say("what fails is not tried again at once", task, f"{MOST_TASKS} tasks in {now - created[0]:.1f} s")
        created.append(now)

    def _surge(self, task: pb.Task) -> None:
        """A new task does not make more of them than the policy allows."""
        service = self._truth.services.get(task.service_id)
        if service is None or (task.predecessor_id and task.status.state >= pb.TASK_STATE_ACCEPTED):
            return  # a successor that an agent has made
        nodes = self._truth.nodes
        room = self._room.most(service.id, self._room_of(service))
        wanted = [
            one
            for one in self._truth.tasks_of_service(service.id)
            if is_wanted(one)
            and not is_over(one)
            and (not one.node_id or (one.node_id in nodes and nodes[one.node_id].state != pb.NODE_STATE_DOWN))
        ]
        if len(wanted) > room:
            self._say("live tasks ≤ replicas + surge", task, f"{len(wanted)} > {room}", service.id)

    # ---- services and rollouts ----

    def _room_of(self, service: pb.Service) -> int:
        """Replicas + surge."""
        is_global = service.spec.mode == spec.SERVICE_MODE_GLOBAL
        size = len(self._truth.nodes) if is_global else service.spec.replicas
        policies = (service.spec.update, service.spec.rollback, service.previous_spec.update)
        return size + max(1, *(policy.parallelism or size for policy in policies))

    def _service(self, old: pb.Service | None, new: pb.Service | None) -> None:
        if new is None or old is None:
            return
        self._room.replaced(new.id, self._room_of(old))
        if new.spec_version < old.spec_version:
            self._findings.add("an acknowledged deploy survives", "a service's version went back", new.id)
        if new.rollout_id != old.rollout_id:
            self._spec_before[new.rollout_id] = old.spec
        elif new.spec != old.spec and new.spec != self._spec_before.get(new.rollout_id):
            self._findings.add(
                "a failed update ends where it began", f"{new.spec.name} is rolled back to something else", new.id
            )

    def _rollout(self, old: pb.Rollout | None, new: pb.Rollout | None) -> None:
        if new is not None:
            self._rollouts[new.id] = None
        if old is None or new is None:
            return
        if old.state not in _ACTIVE and new.state != old.state:
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

    def _say(self, invariant: str, task: pb.Task, text: str = "", *about: str) -> None:
        self._findings.add(invariant, f"{task.service_name}.{task.slot} {task.id} {text}", task.id, *about)
