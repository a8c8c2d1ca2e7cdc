"""A whole cluster in one thread: planners on a FakeWorld, agents and a scheduler that do what the real ones promise.

Nothing happens by itself: a test calls `converge`, `schedule`, `drain`, `agent` and `acknowledge` in whatever order it
likes. What must never happen is checked at every write, by `WatchedWorld`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator import service as allocator
from pyswarm_manager.allocator.ranges import layout
from pyswarm_manager.drain import stages
from pyswarm_manager.orchestrator import converge
from pyswarm_manager.plan import Plan, Put, Write, changed
from pyswarm_manager.scheduler import assign
from pyswarm_manager.scheduler.constraints import matches
from pyswarm_manager.tasks import is_endpoint, is_terminal, is_wanted, may_be_exclusive
from tests.support.watched import WatchedWorld
from tests.support.world import FakeAcks

# What images do, by the last word of their name.
GOOD, CRASHES, HANGS, UNKNOWN = "good", "crashes", "hangs", "unknown"


class Cluster:
    """`real`: places tasks by the real scheduler and allocator, on a small network, instead of the fake ones."""

    def __init__(self, seed: int, nodes: int = 3, *, real: bool = False) -> None:
        self.rng = random.Random(seed)
        self.world = WatchedWorld()
        self.acks = FakeAcks()
        self.now = 1_000_000.0
        self.started: Counter[str] = Counter()  # task id → how often its container was started
        self.running: dict[str, str] = {}  # task id → node, containers that exist
        self.cut: set[str] = set()  # nodes that the managers cannot reach
        self.kernel: dict[str, dict[str, tuple[str, ...]]] = {}  # node → the endpoints in its balancer
        self.real = real
        if real:
            network = pb.Network(id="default", spec=spec.NetworkSpec(name="default", subnet="10.0.0.0/24"), vni=4096)
            network.vip_range = layout("10.0.0.0/24").vips.cidr
            self.world.put(network)
        for number in range(1, nodes + 1):
            self.add_node(f"n{number}", number)

    def add_node(self, name: str, number: int) -> None:
        self.world.put(
            pb.Node(
                id=name,
                number=number,
                state=pb.NODE_STATE_READY,
                serving=True,
                spec=spec.NodeSpec(labels={"zone": "ab"[number % 2]}),
                description=pb.NodeDescription(hostname=name),
            )
        )
        self.kernel[name] = {}

    # the leader

    def converge(self, service_id: str = "svc", steps: int | None = None) -> Plan:
        plan = converge.plan(self.world, self.acks, service_id, self.now, self.rng)
        for step in plan.steps:
            assert any(write.message.version for write in step), f"it could happen twice: {step}"
        self.world.apply(plan, steps)
        return plan

    def drain(self, steps: int | None = None) -> Plan:
        plan = stages.plan(self.world, self.acks, self.now)
        for step in plan.steps[:steps]:
            self._check_release(step)
        self.world.apply(plan, steps)
        return plan

    def schedule(self) -> int:
        """Assigns what can be; returns how many."""
        if self.real:
            return self._really_schedule()
        world, assigned = self.world, 0
        for task in sorted(world.tasks.values(), key=lambda t: (t.created_at, t.id)):
            if task.status.state > pb.TASK_STATE_PENDING or not is_wanted(task):
                continue
            nodes = [n for n in world.nodes.values() if self._takes(n, task)]
            if task.node_id:
                nodes = [n for n in nodes if n.id == task.node_id]
            out = changed(task)
            if not nodes:
                if task.status.state == pb.TASK_STATE_NEW:
                    out.status.state, out.status.at = pb.TASK_STATE_PENDING, self.now
                    out.status.message = "no suitable node"
                    world.put(out)
                continue
            load = Counter(t.node_id for t in world.tasks_of_service(task.service_id) if is_wanted(t))
            node = min(nodes, key=lambda n: (load[n.id], n.id))
            out.node_id = node.id
            out.addresses.add(network_id="default", address=self._free_address())
            out.status.state, out.status.at = pb.TASK_STATE_ASSIGNED, self.now
            out.status.message = ""
            world.put(out)
            assigned += 1
        return assigned

    def _really_schedule(self) -> int:
        for service_id in self.world.services:
            self.world.apply(allocator.plan(self.world, service_id, self.now))
        plan = assign.plan(self.world, self.now)
        for step in plan.steps:
            for write in step:
                task = write.message
                if isinstance(task, pb.Task) and task.status.state == pb.TASK_STATE_ASSIGNED:
                    for held in task.addresses:
                        self._check_free(held.address)
        self.world.apply(plan)
        return len(plan.steps)

    def _takes(self, node: pb.Node, task: pb.Task) -> bool:
        if node.state != pb.NODE_STATE_READY or node.spec.availability != spec.NODE_AVAILABILITY_ACTIVE:
            return False
        ports = {p.published for p in task.spec.host_ports}
        for other in self.world.tasks_of_node(node.id):
            there = other.status.state >= pb.TASK_STATE_ASSIGNED and not is_terminal(other)
            if there and ports & {p.published for p in other.spec.host_ports}:
                return False
        return matches(task.spec.placement.constraints, node)

    def _free_address(self) -> str:
        held = {a.address for t in self.world.tasks.values() if not t.addresses_free for a in t.addresses}
        number = 1
        while f"10.0.0.{number}" in held:
            number += 1
        self._check_free(f"10.0.0.{number}")
        return f"10.0.0.{number}"

    def _check_free(self, address: str) -> None:
        for task in self.world.tasks.values():
            assert task.addresses_free or address not in [a.address for a in task.addresses], f"{address} is held"
        for node in self.world.nodes:
            known = [a for addresses in self.kernel[node].values() for a in addresses]
            assert address not in known, f"{address} is still in {node}'s balancer"

    def _check_release(self, step: Sequence[Write]) -> None:
        for write in step:
            task = write.message
            if isinstance(write, Put) and isinstance(task, pb.Task) and task.released:
                for node in self.world.nodes.values():
                    if node.state != pb.NODE_STATE_DOWN and node.serving:
                        assert task.id not in self.kernel[node.id], f"released, but in {node.id}'s balancer"

    # the nodes

    def acknowledge(self, node_id: str, revision: int | None = None) -> None:
        """The node's kernel now has the endpoints of that revision (None: of now)."""
        if node_id in self.cut:
            return
        revision = self.world.revision if revision is None else revision
        if revision <= self.acks.applied(node_id):
            return
        self.acks.revisions[node_id] = revision
        self.kernel[node_id] = self.world.endpoints_at[revision]
        node = self.world.nodes[node_id]
        if node.state == pb.NODE_STATE_READY and not node.serving and revision == self.world.revision:
            out = changed(node)
            out.serving = True
            self.world.put(out)

    def acknowledge_all(self) -> None:
        for node_id in sorted(self.world.nodes):
            self.acknowledge(node_id)

    def agent(self, task_id: str) -> bool:
        """The task's agent takes one step with it; False when there is nothing to do."""
        task = self.world.tasks[task_id]
        node = self.world.nodes.get(task.node_id)
        if node is None or node.id in self.cut or is_terminal(task) or task.status.state < pb.TASK_STATE_ASSIGNED:
            return False
        state, stop = task.status.state, task.desired_state >= pb.TASK_STATE_SHUTDOWN
        kind = task.spec.container.image.rsplit("-", 1)[-1]
        if stop and (state < pb.TASK_STATE_RUNNING or task.released):
            return self._end(task, pb.TASK_STATE_SHUTDOWN)
        if state == pb.TASK_STATE_ASSIGNED:
            return self._report(task, pb.TASK_STATE_ACCEPTED)
        if state == pb.TASK_STATE_ACCEPTED:
            if kind == UNKNOWN:
                return self._end(task, pb.TASK_STATE_REJECTED, "no such tag")
            return self._report(task, pb.TASK_STATE_PREPARING)
        if state == pb.TASK_STATE_PREPARING:
            return self._report(task, pb.TASK_STATE_READY)
        if state == pb.TASK_STATE_READY and task.desired_state == pb.TASK_STATE_RUNNING:
            self.started[task.id] += 1
            assert self.started[task.id] == 1, f"{task.id} was started twice"
            self.running[task.id] = task.node_id
            return self._report(task, pb.TASK_STATE_STARTING)
        if state == pb.TASK_STATE_STARTING and kind == CRASHES:
            return self._end(task, pb.TASK_STATE_FAILED, "exit code 3")
        if state == pb.TASK_STATE_STARTING and kind != HANGS:
            return self._report(task, pb.TASK_STATE_RUNNING)
        return False

    def _report(self, task: pb.Task, state: pb.TaskState.ValueType) -> bool:
        out = changed(task)
        out.status.state, out.status.at = state, self.now
        if state == pb.TASK_STATE_STARTING:
            out.status.timings.started_at = self.now
        if state == pb.TASK_STATE_RUNNING:
            out.status.health, out.status.health_at = pb.HEALTH_HEALTHY, self.now
            out.status.timings.healthy_at = self.now
        self.world.put(out)
        return True

    def _end(self, task: pb.Task, state: pb.TaskState.ValueType, error: str = "", *, with_host: bool = False) -> bool:
        out = changed(task)
        out.status.state, out.status.at, out.status.error = state, self.now, error
        out.status.ended_with_host = with_host
        out.status.timings.stopped_at = self.now if task.id in self.running else 0
        self.running.pop(task.id, None)
        self.world.put(out)
        return True

    # faults

    def fail(
        self, task_id: str, state: pb.TaskState.ValueType = pb.TASK_STATE_FAILED, *, with_host: bool = False
    ) -> bool:
        task = self.world.tasks[task_id]
        if task.status.state not in (pb.TASK_STATE_STARTING, pb.TASK_STATE_RUNNING) or task.node_id in self.cut:
            return False
        return self._end(task, state, "killed by the test", with_host=with_host)

    def set_health(self, task_id: str, health: pb.Health.ValueType) -> bool:
        task = self.world.tasks[task_id]
        if task.status.state != pb.TASK_STATE_RUNNING or task.node_id in self.cut:
            return False
        out = changed(task)
        out.status.health, out.status.health_at = health, self.now
        self.world.put(out)
        return True

    def cut_node(self, node_id: str) -> None:
        """The managers lose it; its containers and its balancer go on."""
        self.cut.add(node_id)
        out = changed(self.world.nodes[node_id])
        out.state, out.serving = pb.NODE_STATE_DOWN, False
        self.world.put(out)

    def heal_node(self, node_id: str) -> None:
        """The dispatcher's rule: not before what was given up is stored as such."""
        out = changed(self.world.nodes[node_id])
        if out.permit_over and any(map(may_be_exclusive, self.world.tasks_of_node(node_id))):
            return
        self.cut.discard(node_id)
        out.state, out.permit_over = pb.NODE_STATE_READY, False
        self.world.put(out)

    def end_permit(self, node_id: str) -> None:
        """It was cut off for so long that it has ended its exclusive tasks, and the leader knows."""
        for task in self.world.tasks_of_node(node_id):
            if task.spec.exclusive:
                self.running.pop(task.id, None)
        out = changed(self.world.nodes[node_id])
        out.permit_over = True
        self.world.put(out)

    def remove_node(self, node_id: str) -> None:
        self.cut.discard(node_id)
        self.world.delete(self.world.nodes[node_id])
        self.acks.revisions.pop(node_id, None)

    def set_availability(self, node_id: str, availability: spec.NodeAvailability.ValueType) -> None:
        out = changed(self.world.nodes[node_id])
        out.spec.availability = availability
        self.world.put(out)

    # the user

    def deploy(self, wanted: spec.ServiceSpec, service_id: str = "svc") -> pb.Rollout:
        """What the API stores for a create or an update."""
        old = self.world.services.get(service_id)
        service = pb.Service(id=service_id) if old is None else changed(old)
        from_version = service.spec_version
        if old is not None:
            service.previous_spec.CopyFrom(old.spec)
        service.spec.CopyFrom(wanted)
        service.spec_version += 1
        service.rollout_id = f"r{self.world.revision}"
        rollout = pb.Rollout(
            id=service.rollout_id,
            service_id=service_id,
            service_name=wanted.name,
            from_version=from_version,
            to_version=service.spec_version,
        )
        self.world.put(service, rollout)
        return rollout

    def remove(self, service_id: str = "svc") -> None:
        out = changed(self.world.services[service_id])
        out.removing = True
        self.world.put(out)

    # looking

    @property
    def service(self) -> pb.Service:
        return self.world.services["svc"]

    @property
    def rollout(self) -> pb.Rollout:
        return self.world.rollouts[self.service.rollout_id]

    def serving(self, service_id: str = "svc") -> list[pb.Task]:
        return [t for t in self.world.tasks_of_service(service_id) if is_endpoint(t, self.world.nodes.get(t.node_id))]

    def wanted(self, service_id: str = "svc") -> list[pb.Task]:
        """Alive, meant to run, on a node that is not down (or on none yet)."""
        down = {n.id for n in self.world.nodes.values() if n.state == pb.NODE_STATE_DOWN}
        return [
            t
            for t in self.world.tasks_of_service(service_id)
            if is_wanted(t) and not is_terminal(t) and t.node_id not in down
        ]

    def living(self, service_id: str = "svc") -> list[pb.Task]:
        return [t for t in self.world.tasks_of_service(service_id) if not is_terminal(t)]

    def round(self) -> bool:
        """Everybody does what there is to do, once; False when nobody had anything."""
        before = self.world.revision
        for service_id in sorted({*self.world.services, *(t.service_id for t in self.world.tasks.values())}):
            self.converge(service_id)
        self.schedule()
        for task_id in sorted(self.world.tasks):
            self.agent(task_id)
        self.acknowledge_all()
        self.drain()
        self.acknowledge_all()
        return self.world.revision != before

    def settle(self, rounds: int = 400, until: float = 3600) -> None:
        """Rounds until nobody has anything to do and no timer within `until` seconds is left."""
        end = self.now + until
        for _ in range(rounds):
            if self.round():
                continue
            wakes = [
                converge.plan(self.world, self.acks, service_id, self.now, random.Random(0)).wake_at
                for service_id in self.world.services
            ]
            due = min((w for w in wakes if w is not None), default=None)
            if due is None or due > end:
                return
            self.now = max(due, self.now)
        raise AssertionError(f"not settled after {rounds} rounds: {self.story()}")

    def run(self, seconds: float) -> None:
        """Rounds and timers for this long, and not longer."""
        end = self.now + seconds
        self.settle(until=seconds)
        self.now = end

    def of_slot(self, slot: int, service_id: str = "svc") -> list[pb.Task]:
        """Oldest first."""
        tasks = [t for t in self.world.tasks_of_service(service_id) if t.slot == slot]
        return sorted(tasks, key=lambda t: (t.created_at, t.version))

    def story(self) -> str:
        """For the message of a failed assertion."""
        lines = [f"now={self.now} revision={self.world.revision} cut={sorted(self.cut)}"]
        for node in self.world.nodes.values():
            lines.append(f"{node.id} {pb.NodeState.Name(node.state)} serving={node.serving} {node.spec.availability}")
        for rollout in self.world.rollouts.values():
            lines.append(f"{rollout.id} {pb.RolloutState.Name(rollout.state)} {rollout.reason!r}")
            lines += [f"  {p.slot}{p.node_id} {pb.SlotPhase.Name(p.phase)} {p.new_task_id[:5]}" for p in rollout.slots]
        for task in sorted(self.world.tasks.values(), key=lambda t: (t.service_id, t.slot, t.created_at)):
            lines.append(
                f"{task.service_id} {task.slot} {task.id[:5]} {task.node_id} {task.spec.container.image}"
                f" {pb.TaskState.Name(task.status.state)[11:]} wanted {pb.TaskState.Name(task.desired_state)[11:]}"
                f" health={task.status.health} leaving={task.leaving} released={task.released}"
                f" balanced={task.balanced_at > 0} free={task.addresses_free} after={task.start_after}"
                f" v{task.version} {task.status.message}"
            )
        return "\n".join(lines)
