"""Can this node take this task? Filters in order; the first that refuses is the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.scheduler.constraints import architecture, parse
from pyswarm_manager.scheduler.hosts import Demand, Host


class Filter(IntEnum):
    """In the order in which they are asked."""

    NOT_READY = 1
    DOWN = 2
    DRAINED = 3
    PAUSED = 4
    CONSTRAINT = 5
    PLATFORM = 6
    CPUS = 7
    MEMORY = 8
    HOST_PORT = 9
    MAX_PER_NODE = 10
    ADDRESS = 11


@dataclass(frozen=True, slots=True)
class Refusal:
    """`detail`: which constraint, port or network (by name): what the message needs and the spec does not tell."""

    by: Filter
    detail: str = ""


_CPUS = Refusal(Filter.CPUS)
_MEMORY = Refusal(Filter.MEMORY)
_MAX = Refusal(Filter.MAX_PER_NODE)
_PLATFORM = Refusal(Filter.PLATFORM)

StaticKey = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
_ANY: StaticKey = ((), ())


def node_refusal(node: pb.Node) -> Refusal | None:
    """The filters that do not depend on the task."""
    if node.state == pb.NODE_STATE_DOWN:
        return Refusal(Filter.DOWN)
    if node.state != pb.NODE_STATE_READY:
        return Refusal(Filter.NOT_READY)
    if node.spec.availability == spec.NODE_AVAILABILITY_DRAIN:
        return Refusal(Filter.DRAINED)
    if node.spec.availability == spec.NODE_AVAILABILITY_PAUSE:
        return Refusal(Filter.PAUSED)
    return None


class StaticFilters:
    """Node, constraints and platform: they do not change within a run, so their answers are kept for each combination
    that services ask for."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._known: dict[StaticKey, dict[str, Refusal]] = {}

    def refusals(self, task: spec.TaskSpec) -> dict[str, Refusal]:
        """Of all hosts that are refused, by id. The caller does not change it."""
        key = _static_key(task)
        if key not in self._known:
            if key == _ANY:
                found = {host.id: node_refusal(host.node) for host in self._hosts.values()}
                self._known[key] = {host_id: refusal for host_id, refusal in found.items() if refusal}
            else:
                self._known[key] = self._evaluate(*key)
        return self._known[key]

    def refusal(self, task: spec.TaskSpec, host: Host) -> Refusal | None:
        """Of one host: for global services, which have one task for each."""
        return self.refusals(task).get(host.id)

    def _evaluate(self, constraints: Sequence[str], platforms: Sequence[tuple[str, str]]) -> dict[str, Refusal]:
        refusals = dict(self.refusals(spec.TaskSpec()))
        for host in self._hosts.values():
            if host.id in refusals:
                continue
            broken = next((text for text in constraints if not _holds(text, host.node)), None)
            if broken is not None:
                refusals[host.id] = Refusal(Filter.CONSTRAINT, broken)
            elif platforms and _platform(host.node.description.platform) not in platforms:
                refusals[host.id] = _PLATFORM
        return refusals


def _static_key(task: spec.TaskSpec) -> StaticKey:
    platforms = tuple(sorted({_platform(platform) for platform in task.container.platforms}))
    return tuple(task.placement.constraints), platforms


def _platform(platform: spec.Platform) -> tuple[str, str]:
    return platform.os.lower() or "linux", architecture(platform.architecture)


def _holds(constraint: str, node: pb.Node) -> bool:
    try:
        return parse(constraint).holds(node)
    except InvalidInput:  # the API refuses those: whatever got past it matches nothing, and the message names it
        return False


class RoomFilters:
    """Resources, host ports and max replicas per node: asked again after each placement."""

    __slots__ = ("_max", "asks_nothing", "demand")

    def __init__(self, task: spec.TaskSpec) -> None:
        self.demand = Demand(task)
        self._max: int = task.placement.max_per_node
        self.asks_nothing = not (self.demand.cpus or self.demand.memory or self.demand.ports or self._max)

    def refusal(self, host: Host, replicas: int) -> Refusal | None:
        """`replicas`: how many slots of this service the host has already."""
        demand = self.demand
        if demand.cpus > host.cpus_free and demand.cpus:
            return _CPUS
        if demand.memory > host.memory_free and demand.memory:
            return _MEMORY
        for key in demand.ports:
            if key in host.ports:
                protocol = "udp" if key[0] == spec.PROTOCOL_UDP else "tcp"
                return Refusal(Filter.HOST_PORT, f"{key[1]}/{protocol}")
        if self._max and replicas >= self._max:
            return _MAX
        return None
