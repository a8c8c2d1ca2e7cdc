"""What is done at once where nothing stands in the way: looked at every other second, also while faults go on.

The world that is left when all faults have ended hides what was late: somebody has come by since and repaired it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.simulation.checks.quiet import Quiet
from tests.simulation.checks.words import is_over, is_wanted, serves
from tests.simulation.cluster import Cluster
from tests.simulation.virtual import world_time

from pyswarm_agent.tasks.machine import is_untold
from pyswarm_core import kinds
from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import planners
from pyswarm_manager.plan import Plan, Put, earliest
from pyswarm_manager.scheduler.constraints import matches

# Seconds.
DONE = 8.0  # what the leader sees that it has to do
TOLD = 5.0  # what an agent knows
APPLIED = 4.0  # what is stored of endpoints
NOTICED = 8.0  # an end
LONGEST_TIMER = 300.0  # before the next start of what fails again and again
# Twice a task's before its start, and a slot's: the leader's clock may be set while they are waited for.
LONGEST_START, LONGEST_MONITOR = 600.0, 10.0
SET = 320.0  # after the leader's clock was set by so much, at most: timers run on by the time that was left

_ACTIVE = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK)
_STOPPED = (pb.TASK_STATE_COMPLETE, pb.TASK_STATE_FAILED, pb.TASK_STATE_SHUTDOWN)


@dataclass(frozen=True, slots=True)
class Late:
    """Something that is not right. `key`: what it is, as long as that is the same; `longest`: how long it may be so."""

    invariant: str
    text: str
    longest: float
    key: object
    about: tuple[str, ...]


class Prompt:
    def __init__(self, cluster: Cluster, is_managed: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._truth = cluster.truth
        self._findings = cluster.findings
        self._names = {host.node_id: name for name, host in cluster.hosts.items()}
        self._quiet = Quiet(cluster, is_managed)
        self._since: dict[object, float] = {}
        self._planners = planners.real()
        self._planned: object = None  # upon what the planners found nothing to do
        self._plan_at = 0.0  # when time alone may give them something

    async def run(self) -> None:
        while True:
            for _ in range(2):
                await asyncio.sleep(1.0)
                self._quiet.look()
            self._copies()
            now, since = world_time(), self._since
            self._since = {}
            for late in self._all():
                began = self._since[late.invariant, late.key] = since.get((late.invariant, late.key), now)
                if now - began > late.longest:
                    self._findings.add(late.invariant, f"{late.text}, since {began:.0f}", *late.about)

    def _all(self) -> Iterator[Late]:
        led_for, is_retried = self._quiet.led_for(), self._quiet.is_retried()
        if is_retried:
            yield from self._plans()
            yield from self._slots()
            yield from self._overtaken()
            yield from self._waits()
            yield from self._drained()
        fit = {
            address.address
            for task in self._truth.tasks.values()
            if serves(task, self._truth.nodes)
            for address in task.addresses
        }
        for name in self._cluster.hosts:
            if min(led_for, self._quiet.host_for(name)) > TOLD:
                yield from self._endpoints(name, fit)
                if is_retried:
                    yield from self._known(name)

    # ---- the managers' ----

    def _copies(self) -> None:
        """A manager that has heard of everything has what is stored."""
        truth = self._truth
        for manager in self._cluster.managers.values():
            if manager.core.cache.revision < truth.revision:
                continue
            for what in ("services", "tasks", "nodes", "networks", "rollouts"):
                stored, known = _versions(getattr(truth, what)), _versions(getattr(manager.core.world, what))
                if stored != known:
                    differ = sorted(key for key, _ in stored.items() ^ known.items())
                    text = f"the manager on {manager.host.name} is wrong about {len(differ)} {what}: {differ[:4]}"
                    self._findings.add("a manager's copy is what is stored", text, *differ)

    def _plans(self) -> Iterator[Late]:
        """Whatever the planners find that is to be done is done: no wake, timer or failed attempt was forgotten."""
        leader = self._quiet.leader
        assert leader is not None and leader.core.term is not None
        if world_time() - leader.host.jumped_at < min(SET, abs(leader.host.jumped_by) + DONE):
            return
        truth, acks, now = self._truth, leader.core.term.dispatcher.acks, leader.host.now()
        seen = (leader, truth.revision, *(acks.applied(node_id) for node_id in truth.nodes))
        if seen == self._planned and now < self._plan_at:
            return  # they found nothing to do, and would find the same
        plans: list[tuple[str, Plan]] = [("", self._planners.assign(truth, now))]
        plans.append(("", self._planners.drain(truth, acks, now)))
        for service_id in sorted({*truth.services, *(task.service_id for task in truth.tasks.values())}):
            plans.append((service_id, self._planners.allocate(truth, service_id, now, ())))
            plans.append((service_id, self._planners.converge(truth, acks, service_id, now, random.Random(0))))
        self._planned = None if any(plan for _, plan in plans) else seen
        self._plan_at = earliest(*(plan.wake_at for _, plan in plans)) or math.inf
        for service_id, plan in plans:
            if (gist := _gist(plan)) and not self._only_dates(plan):
                about = (service_id, *(task_id for _, _, task_id, _ in gist if task_id))
                text = f"{'; '.join(plan.notes) or [line[:3] for line in gist]}"
                # Timers are of the steady clock: where that is slow, the longest is late by the wall's.
                slow = LONGEST_TIMER * max(0.0, 1 / leader.host.clock.rate - 1)
                yield Late("what is to be done is done", text, DONE + slow, gist, about)

    def _only_dates(self, plan: Plan) -> bool:
        """Of tasks that a clock was set back for. Nothing waits for them until something else is to be done there."""
        return all(
            isinstance(write, Put)
            and isinstance(task := write.message, pb.Task)
            and (stored := self._truth.tasks.get(task.id)) is not None
            and _undated(task) == _undated(stored)
            for step in plan.steps
            for write in step
        )

    def _slots(self) -> Iterator[Late]:
        """A slot has a task, when nothing was given up and the policy allows any number; it may wait for its start."""
        for service in self._truth.services.values():
            rollout = self._truth.rollouts.get(service.rollout_id)
            restart = service.spec.task.restart
            if service.removing or rollout is None or rollout.state in _ACTIVE:
                continue
            if restart.max_attempts or restart.condition != spec.RESTART_CONDITION_ANY:
                continue
            tasks = self._truth.tasks_of_service(service.id)
            if any(task.status.state == pb.TASK_STATE_REJECTED or task.spec.restart != restart for task in tasks):
                continue  # what could not be prepared is not made again at once; and older versions, older policies
            filled = {task.slot or task.node_id for task in tasks if is_wanted(task) and not is_over(task)}
            if service.spec.mode == spec.SERVICE_MODE_GLOBAL:
                lacking = len(self._places(service) - filled)
            else:
                lacking = service.spec.replicas - len(filled)
            if lacking > 0:
                text = f"{service.spec.name} lacks {lacking} tasks; {sorted(map(str, filled))} are filled"
                yield Late("an empty slot is filled", text, DONE, (service.id, lacking), (service.id,))

    def _places(self, service: pb.Service) -> set[int | str]:
        """The nodes that a global service is to be on."""
        constraints = service.spec.task.placement.constraints
        return {
            node.id
            for node in self._truth.nodes.values()
            if node.state == pb.NODE_STATE_READY
            and node.spec.availability == spec.NODE_AVAILABILITY_ACTIVE
            and matches(constraints, node)
        }

    def _overtaken(self) -> Iterator[Late]:
        for rollout in self._truth.rollouts.values():
            service = self._truth.services.get(rollout.service_id)
            if service is not None and service.rollout_id != rollout.id and rollout.state in _ACTIVE:
                text = f"{rollout.service_name} has another rollout, and {rollout.id} goes on"
                yield Late("an overtaken rollout ends", text, DONE, rollout.id, (rollout.id, service.id))

    def _waits(self) -> Iterator[Late]:
        """Nothing waits for longer than its policy says, whoever's clock was wrong when it was stored."""
        leader = self._quiet.leader
        assert leader is not None
        invariant, now = "nothing waits for a clock", leader.host.now()
        for task in self._truth.tasks.values():
            if task.desired_state == pb.TASK_STATE_READY and task.start_after > now and not is_over(task):
                text = f"{task.service_name}.{task.slot} {task.id} is to start in {task.start_after - now:.0f} s"
                yield Late(invariant, text, LONGEST_START + DONE, task.id, (task.id,))
        for rollout in self._truth.rollouts.values():
            for p in rollout.slots if rollout.state in _ACTIVE else ():
                if p.phase == pb.SLOT_PHASE_MONITORING and p.monitor_until > now:
                    left = p.monitor_until - now
                    text = f"slot {p.slot}{p.node_id} of {rollout.service_name} is watched for {left:.0f} s"
                    key = (rollout.id, p.slot, p.node_id, p.new_task_id)
                    yield Late(invariant, text, LONGEST_MONITOR + DONE, key, (rollout.id, p.new_task_id))

    def _drained(self) -> Iterator[Late]:
        """While a drained node has a task of a service, something of that service is on its way."""
        for node in self._truth.nodes.values():
            if node.spec.availability != spec.NODE_AVAILABILITY_DRAIN or node.state != pb.NODE_STATE_READY:
                continue
            for task in self._truth.tasks_of_node(node.id):
                service = self._truth.services.get(task.service_id)
                if service is None or service.removing or is_over(task) or not is_wanted(task):
                    continue
                restart = service.spec.task.restart
                is_limited = restart.max_attempts or restart.condition != spec.RESTART_CONDITION_ANY
                if is_limited and self._has_failed(task):
                    continue  # what was to take its place has failed, and may not be made again
                rollout = self._truth.rollouts.get(service.rollout_id)
                if rollout is not None and rollout.state in _ACTIVE:
                    continue
                if service.spec.mode == spec.SERVICE_MODE_GLOBAL or not self._moves(service):
                    text = f"{node.id} is drained and keeps {task.service_name}.{task.slot} {task.id}"
                    about = (task.id, node.id, service.id)
                    yield Late("a drained node's tasks begin to leave", text, DONE, (node.id, service.id), about)

    def _has_failed(self, task: pb.Task) -> bool:
        """Another task of its slot."""
        tasks = self._truth.tasks_of_service(task.service_id)
        failed = (pb.TASK_STATE_FAILED, pb.TASK_STATE_REJECTED, pb.TASK_STATE_COMPLETE)
        return any(other.slot == task.slot and other.status.state in failed for other in tasks)

    def _moves(self, service: pb.Service) -> bool:
        tasks = [task for task in self._truth.tasks_of_service(service.id) if not is_over(task)]
        slots = {task.slot for task in tasks}
        return len(tasks) > len(slots) or not all(serves(task, self._truth.nodes) for task in tasks)

    # ---- the hosts' ----

    def _endpoints(self, name: str, fit: set[str]) -> Iterator[Late]:
        """What is stored of a task is in the balancers soon: none sends to one that is not healthy. `fit`: the
        addresses of those that serve."""
        host, truth = self._cluster.hosts[name], self._truth
        node = truth.nodes.get(host.node_id)
        if node is None or host.state is None:
            return
        for service in host.state.services.values():
            if service.service_id.startswith("host:"):
                continue
            for address in service.backends:
                if address not in fit:
                    text = f"{name} sends to {address} of {service.name}, which is stored as not serving"
                    about = (service.service_id, host.node_id)
                    yield Late("what is stored of endpoints is applied", text, APPLIED, (name, address), about)

    def _known(self, name: str) -> Iterator[Late]:
        """What happens to a container is noticed by its agent; what an agent knows is stored."""
        host, process = self._cluster.hosts[name], self._quiet.agent(name)
        assert process is not None and process.agent is not None
        now = world_time()
        for task_id, container in host.containers.items():
            task = self._truth.tasks.get(task_id)
            if task is None or task.node_id != host.node_id:
                continue
            if container.exit is not None and not is_over(task):
                text = f"the container of {task_id} on {name} has ended"
                yield Late("an end is told of", text, NOTICED, task_id, (task_id,))
            if container.running and task.status.state in _STOPPED:
                text = f"the container of {task_id} on {name} runs"
                yield Late("what is stored as over does not run", text, NOTICED, task_id, (task_id,))
            probe = task.spec.container.probe
            ill = container.running and now < container.sick_until and container.kind != "flaky"
            if ill and task.spec.container.HasField("probe") and serves(task, self._truth.nodes):
                longest = (probe.retries + 1) * probe.interval + TOLD
                text = f"{task_id} on {name} fails its probe"
                yield Late("a task that falls ill is told of", text, longest, task_id, (task_id,))
        for task_id, life in process.agent.tasks.lives().items():
            task = self._truth.tasks.get(task_id)
            if task is None or task.node_id != host.node_id or life.gone or is_over(task) or is_untold(life):
                continue  # of what has ended a host that has lost its journal may tell another end
            known, stored = life.status, task.status
            if known.state > stored.state or (known.state == stored.state and known.health != stored.health):
                text = f"{name} knows that {task_id} is {pb.TaskState.Name(known.state)}, health {known.health}"
                yield Late(
                    "what an agent knows is stored", text, TOLD, (task_id, known.state, known.health), (task_id,)
                )


def _versions(objects: Mapping[str, Stored]) -> dict[str, int]:
    return {object_id: stored.version for object_id, stored in objects.items()}


def _undated(task: pb.Task) -> pb.Task:
    copy = pb.Task()
    copy.CopyFrom(task)
    for field in ("version", "created_at", "window_at"):
        copy.ClearField(field)
    if task.desired_state != pb.TASK_STATE_READY:
        copy.ClearField("start_after")  # it waits for it no more
    return copy


def _gist(plan: Plan) -> tuple[tuple[str, str, str, int], ...]:
    """What it writes, of what has been there; of what it makes, in which place."""
    lines = []
    for write in (write for step in plan.steps for write in step):
        message, verb = write.message, "put" if isinstance(write, Put) else "delete"
        object_id = message.id if message.version else ""
        place = f" {message.slot} {message.node_id}" if isinstance(message, pb.Task) else ""
        lines.append((verb, kinds.KIND_OF[type(message)] + place, object_id, message.version))
    return tuple(sorted(lines))
