"""Which slots a service should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.fitness import Matches, is_misplaced, serves
from pyswarm_manager.orchestrator.slots import Key, Slot
from pyswarm_manager.plan import World


@dataclass(frozen=True, slots=True)
class Selection:
    """`wanted` slots are kept right, in the order of their keys. `held`: of a global service, on paused nodes: kept
    running, not updated. `surplus` slots end. Every other slot is left alone: it is empty, or its node is away."""

    wanted: tuple[Slot, ...]
    held: tuple[Slot, ...]
    surplus: tuple[Slot, ...]


def replicated(world: World, service: pb.Service, slots: Mapping[Key, Slot], matches: Matches) -> Selection:
    """Exactly `replicas`: the ones there are, then the lowest free numbers."""
    replicas = service.spec.replicas
    existing = [slot for slot in slots.values() if slot.exists]
    surplus = _least_worth(world, service, existing, len(existing) - replicas, matches)
    doomed = {slot.key for slot in surplus}
    kept = [slot for slot in existing if slot.key not in doomed]
    taken = {slot.key for slot in existing}
    number = 1
    while len(kept) < replicas:
        key = (number, "")
        if key not in taken:
            kept.append(slots.get(key, Slot(key)))
        number += 1
    return Selection(tuple(sorted(kept, key=lambda slot: slot.key)), (), tuple(surplus))


def global_(world: World, service: pb.Service, slots: Mapping[Key, Slot], matches: Matches) -> Selection:
    """One on each node that is ready, active and meets the constraints. A task on a node that is down stays wanted: it
    may well be running, and when the node returns it is right where it should be."""
    constraints = service.spec.task.placement.constraints
    wanted, held, surplus = [], [], []
    for node_id in sorted({*world.nodes, *(key[1] for key in slots)}):
        slot = slots.get((0, node_id), Slot((0, node_id)))
        node = world.nodes.get(node_id)
        drained = node is not None and node.spec.availability == spec.NODE_AVAILABILITY_DRAIN
        if node is None or drained or not matches(constraints, node):
            if slot.exists:
                surplus.append(slot)
        elif node.state != pb.NODE_STATE_READY:
            continue
        elif node.spec.availability == spec.NODE_AVAILABILITY_PAUSE:
            if slot.exists:
                held.append(slot)
        else:
            wanted.append(slot)
    return Selection(tuple(wanted), tuple(held), tuple(surplus))


def _least_worth(
    world: World, service: pb.Service, existing: Sequence[Slot], count: int, matches: Matches
) -> list[Slot]:
    """The `count` slots to give up: first those that do not serve, then those whose task must leave its node, then
    those of another spec than the service's, then from the node with the most tasks, the highest number first."""
    if count <= 0:
        return []

    def worth(slot: Slot) -> tuple[bool, bool, bool]:
        serving = [task for task in slot.wanted if serves(world, task)]
        return (
            bool(serving),
            any(not is_misplaced(world, task, matches) for task in serving),
            any(task.spec == service.spec.task for task in serving),
        )

    classes: dict[tuple[bool, bool, bool], list[Slot]] = {}
    for slot in existing:
        classes.setdefault(worth(slot), []).append(slot)
    load = Counter(_node_of(slot) for slot in existing)
    chosen: list[Slot] = []
    for _, slots in sorted(classes.items()):
        chosen += _from_fullest(slots, load, count - len(chosen))
    return chosen


def _from_fullest(slots: Sequence[Slot], load: Counter[str], count: int) -> list[Slot]:
    """`load`: node → the service's slots on it; what is taken is subtracted."""
    by_node: dict[str, list[Slot]] = {}
    for slot in slots:  # in ascending order: the last one is the highest
        by_node.setdefault(_node_of(slot), []).append(slot)
    heap = [(-load[node], -group[-1].key[0], node) for node, group in by_node.items()]
    heapify(heap)
    taken: list[Slot] = []
    while heap and len(taken) < count:
        _, _, node = heappop(heap)
        group = by_node[node]
        taken.append(group.pop())
        load[node] -= 1
        if group:
            heappush(heap, (-load[node], -group[-1].key[0], node))
    return taken


def _node_of(slot: Slot) -> str:
    return slot.wanted[-1].node_id if slot.wanted else ""
