"""`plan(world, now)`: a node and addresses for every task that waits for them, or the reason why not.

Waiting tasks are grouped by (service, spec version): a group is filtered once, then placed from a heap. Groups take
their turn by the age of their oldest task. A task's assignment is one Put; networks that get new blocks for it are
put in an earlier step, so the plan is safe when only its first steps happen.

Blocks are given here and nowhere else, so the same run keeps the networks up: see `allocator.upkeep`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.allocator.addresses import Addresses
from pyswarm_manager.allocator.service import RETRY_VIP, missing_vips
from pyswarm_manager.allocator.upkeep import keep_up, needs_upkeep
from pyswarm_manager.plan import Delete, Plan, Put, World, Write, changed, earliest
from pyswarm_manager.scheduler.explain import no_suitable_node, node_not_suitable
from pyswarm_manager.scheduler.failures import avoided_nodes
from pyswarm_manager.scheduler.filters import Filter, Refusal, RoomFilters, StaticFilters
from pyswarm_manager.scheduler.hosts import Host, hosts_of
from pyswarm_manager.scheduler.spread import labels_of, tree
from pyswarm_manager.scheduler.steps import steps_of
from pyswarm_manager.tasks import display_name, is_terminal, is_wanted

SOON = 1.0  # seconds
GroupKey = tuple[str, int, bool]  # service id, spec version, node preset


def plan(world: World, now: float) -> Plan:
    groups = _waiting(world)
    if not groups and not needs_upkeep(world):
        return Plan()
    run = _Run(world, now)
    gone = keep_up(world, run.addresses)
    for tasks in groups:
        service = world.services.get(tasks[0].service_id)
        if service is None:
            continue  # the orchestrator removes what has no service
        lacking = missing_vips(world, service)
        if lacking:
            run.wait_for_vip(tasks, lacking)
        elif tasks[0].node_id:
            run.place_preset(tasks)
        else:
            run.place(tasks)
    run.explain()
    networks: list[Write] = [Put(network) for network in run.addresses.changed_networks()]
    networks += [Delete(network) for network in gone]
    return Plan(steps=steps_of(networks, run.puts), wake_at=run.wake_at, notes=tuple(run.notes))


def _waiting(world: World) -> list[list[pb.Task]]:
    """Groups of tasks that want a node, the oldest first."""
    groups: dict[GroupKey, list[pb.Task]] = {}
    for task in world.tasks.values():
        if task.status.state <= pb.TASK_STATE_PENDING and task.desired_state <= pb.TASK_STATE_RUNNING:
            groups.setdefault((task.service_id, task.spec_version, bool(task.node_id)), []).append(task)
    for tasks in groups.values():
        tasks.sort(key=lambda task: (task.created_at, task.slot, task.id))
    return sorted(groups.values(), key=lambda tasks: (tasks[0].created_at, tasks[0].service_id, tasks[0].id))


@dataclass(slots=True)
class _Run:
    """The scratch state of one planning run."""

    world: World
    now: float
    hosts: dict[str, Host] = field(init=False)
    static: StaticFilters = field(init=False)
    addresses: Addresses = field(init=False)
    puts: list[Write] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # What this run has placed: service id → host id → tasks.
    placed: dict[str, dict[str, int]] = field(default_factory=dict)
    wake_at: float | None = None
    # Tasks that got no place, and how to say why. Said when all is placed: what is free is what is left then, and the
    # next look at the same world finds the same words.
    waiting: list[tuple[Sequence[pb.Task], Callable[[], str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hosts = hosts_of(self.world)
        self.static = StaticFilters(self.hosts)
        self.addresses = Addresses(self.world)

    def place(self, tasks: Sequence[pb.Task]) -> None:
        """Tasks of one spec that may run on any node."""
        first = tasks[0]
        room = RoomFilters(first.spec)
        siblings = self.world.tasks_of_service(first.service_id)
        counts, replaced = _counts(siblings, tasks)
        placed = self.placed.setdefault(first.service_id, {})
        static = self.static.refusals(first.spec)
        candidates = [host for host in self.hosts.values() if host.id not in static]
        if not room.asks_nothing:
            candidates = [
                host
                for host in candidates
                if room.refusal(host, counts.get(host.id, 0) + placed.get(host.id, 0)) is None
            ]
        avoided = avoided_nodes(siblings, self.now)
        rounds = [candidates]
        if avoided:
            rounds = [
                [host for host in candidates if host.id not in avoided],
                [host for host in candidates if host.id in avoided],
            ]

        rest = list(reversed(tasks))
        no_address: dict[str, Refusal] = {}
        for hosts in rounds:
            if rest and hosts:
                self._place_on(hosts, rest, counts, replaced, room, no_address)
        if len(rest) < len(tasks):
            self.notes.append(f"{first.service_name}: {len(tasks) - len(rest)} of {len(tasks)} tasks assigned")
        if rest:

            def reason() -> str:
                refusals = dict(static)
                for host in self.hosts.values():
                    if host.id not in static:
                        replicas = counts.get(host.id, 0) + placed.get(host.id, 0)
                        refusal = room.refusal(host, replicas) or no_address.get(host.id)
                        if refusal is not None:
                            refusals[host.id] = refusal
                return no_suitable_node(first.spec, self.hosts, refusals)

            self.waiting.append((rest, reason))

    def _place_on(
        self,
        candidates: Sequence[Host],
        rest: list[pb.Task],
        counts: Mapping[str, int],
        replaced: Mapping[str, int],
        room: RoomFilters,
        no_address: dict[str, Refusal],
    ) -> None:
        """Takes from the end of `rest` what can be placed."""
        sample = rest[-1].spec
        network_ids = [attachment.network_id for attachment in sample.networks]
        placed = self.placed[rest[-1].service_id]
        so_far = dict(counts)
        for host_id, count in placed.items():
            so_far[host_id] = so_far.get(host_id, 0) + count
        choice = tree(candidates, so_far, replaced, labels_of(sample.placement.preferences), self.hosts)
        used: list[str] = []
        while rest:
            best = choice.best()
            if best is None:
                break
            replicas, _, _, host = best
            taken = self.addresses.take(network_ids, host.node)
            if isinstance(taken, str):
                no_address[host.id] = self._no_address(taken)
                choice.drop()
                continue
            self._assign(rest.pop(), host, taken, room)
            used.append(host.id)
            choice.placed(stays=room.asks_nothing or room.refusal(host, replicas + 1) is None)
        for host_id, count in Counter(used).items():
            placed[host_id] = placed.get(host_id, 0) + count

    def place_preset(self, tasks: Sequence[pb.Task]) -> None:
        """Tasks of a global service: each on its own node or nowhere."""
        room = RoomFilters(tasks[0].spec)
        network_ids = [attachment.network_id for attachment in tasks[0].spec.networks]
        assigned = 0
        for task in tasks:
            host = self.hosts.get(task.node_id)
            if host is None:
                self.waiting.append(([task], lambda: "no suitable node: its node is no longer part of the cluster"))
                continue
            refusal = self.static.refusal(task.spec, host) or room.refusal(host, 0)
            if refusal is None:
                taken = self.addresses.take(network_ids, host.node)
                if not isinstance(taken, str):
                    self._assign(task, host, taken, room)
                    assigned += 1
                    continue
                refusal = self._no_address(taken)
            self.waiting.append(([task], partial(self._preset_reason, task, host, room, refusal)))
        if assigned:
            self.notes.append(f"{tasks[0].service_name}: {assigned} of {len(tasks)} tasks assigned")

    def _preset_reason(self, task: pb.Task, host: Host, room: RoomFilters, before: Refusal) -> str:
        refusal = self.static.refusal(task.spec, host) or room.refusal(host, 0) or before
        return node_not_suitable(task.spec, host, refusal)

    def explain(self) -> None:
        for tasks, reason in self.waiting:
            self._write(tasks, reason())

    def wait_for_vip(self, tasks: Sequence[pb.Task], lacking: Mapping[str, bool]) -> None:
        """`lacking`: network id → whether its VIP range still has room. The allocator is about to give what it can;
        only what it cannot is worth a word. Nothing else wakes the scheduler when a VIP is given, so it looks again."""
        used_up = [self._network_name(network_id) for network_id, has_room in lacking.items() if not has_room]
        self.wake_at = earliest(self.wake_at, self.now + (RETRY_VIP if used_up else SOON))
        if used_up:
            text = f"no address for the service: the VIP range of network {used_up[0]} is used up"
            self.waiting.append((tasks, lambda: text))

    def _no_address(self, network_id: str) -> Refusal:
        network = self.world.networks.get(network_id)
        if network is None:
            return Refusal(Filter.ADDRESS, f"{network_id}, which does not exist")
        why = "which is being removed" if network.removing else "whose blocks are used up"
        return Refusal(Filter.ADDRESS, f"{network.spec.name}, {why}")

    def _network_name(self, network_id: str) -> str:
        network = self.world.networks.get(network_id)
        return network.spec.name if network is not None else network_id

    def _assign(self, task: pb.Task, host: Host, taken: Sequence[tuple[str, str]], room: RoomFilters) -> None:
        assigned = changed(task)
        assigned.node_id = host.id
        addresses = assigned.addresses
        for network_id, address in taken:
            addresses.add(network_id=network_id, address=address)
        status = assigned.status
        status.state = pb.TASK_STATE_ASSIGNED
        status.at = self.now
        if status.message:
            status.message = ""
        host.add(room.demand)
        self.puts.append(Put(assigned))

    def _write(self, tasks: Sequence[pb.Task], message: str) -> None:
        """PENDING with the reason; nothing is written for a task that says so already."""
        for task in tasks:
            if task.status.state == pb.TASK_STATE_PENDING and task.status.message == message:
                continue
            pending = changed(task)
            if pending.status.state != pb.TASK_STATE_PENDING:
                pending.status.state = pb.TASK_STATE_PENDING
                pending.status.at = self.now
            pending.status.message = message
            self.puts.append(Put(pending))
            self.notes.append(f"{display_name(task)}: {message}")


def _counts(siblings: Sequence[pb.Task], waiting: Sequence[pb.Task]) -> tuple[dict[str, int], dict[str, int]]:
    """(tasks of this service by node, tasks that the waiting ones replace by node).

    A slot counts once. A task whose slot is about to be filled anew does not count, for it will go: otherwise a
    start-first rollout would end unbalanced, and could never be done where max replicas per node is reached.
    """
    slots = {task.slot for task in waiting}
    counts: dict[str, int] = {}
    replaced: dict[str, int] = {}
    for task in siblings:
        if task.status.state < pb.TASK_STATE_ASSIGNED or is_terminal(task) or not is_wanted(task):
            continue
        into = replaced if task.slot in slots else counts
        into[task.node_id] = into.get(task.node_id, 0) + 1
    return counts, replaced
