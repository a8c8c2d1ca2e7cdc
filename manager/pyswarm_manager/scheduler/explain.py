"""Why a task waits, in one sentence: which filter refused how many nodes, and what was missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.scheduler.filters import Filter, Refusal
from pyswarm_manager.scheduler.hosts import Host

_PREFIX = "no suitable node: "


def no_suitable_node(task: spec.TaskSpec, hosts: Mapping[str, Host], refusals: Mapping[str, Refusal]) -> str:
    """`refusals`: of every host. The filter that refused most comes first, and says of how many."""
    if not hosts:
        return _PREFIX + "no node has joined"
    groups: dict[Refusal, list[Host]] = {}
    for host_id, refusal in refusals.items():
        groups.setdefault(refusal, []).append(hosts[host_id])
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0].by, item[0].detail))
    clauses = []
    for position, (refusal, refused) in enumerate(ordered):
        count, total = len(refused), len(hosts)
        noun = "node" if (total if position == 0 else count) == 1 else "nodes"
        subject = f"{count} of {total} {noun}" if position == 0 else f"{count} {noun}"
        clauses.append(f"{subject} {_predicate(refusal, refused, task, plural=count > 1)}")
    return _PREFIX + "; ".join(clauses)


def node_not_suitable(task: spec.TaskSpec, host: Host, refusal: Refusal) -> str:
    """For a task that can only run on this one node."""
    return f"{_PREFIX}{host.name} {_predicate(refusal, [host], task, plural=False)}"


def _predicate(refusal: Refusal, refused: Collection[Host], task: spec.TaskSpec, *, plural: bool) -> str:
    be, lack, do, have = ("are", "lack", "do", "have") if plural else ("is", "lacks", "does", "has")
    match refusal.by:
        case Filter.DOWN:
            return f"{be} down"
        case Filter.NOT_READY:
            return f"{be} not ready yet"
        case Filter.DRAINED:
            return f"{be} drained"
        case Filter.PAUSED:
            return f"{be} paused"
        case Filter.CONSTRAINT:
            return f"{do} not meet constraint {refusal.detail}"
        case Filter.PLATFORM:
            wanted = sorted({f"{p.os or 'linux'}/{p.architecture}" for p in task.container.platforms})
            return f"{have} another platform than the image's ({', '.join(wanted)})"
        case Filter.CPUS:
            best = max(refused, key=lambda host: (host.cpus_free, host.name))
            missing = _missing(_cpus(task.resources.reserve_nano_cpus), _cpus(best.cpus_free), best.name, plural)
            return f"{lack} CPU {missing}"
        case Filter.MEMORY:
            best = max(refused, key=lambda host: (host.memory_free, host.name))
            missing = _missing(size(task.resources.reserve_memory), size(best.memory_free), best.name, plural)
            return f"{lack} memory {missing}"
        case Filter.HOST_PORT:
            return f"{have} host port {refusal.detail} in use"
        case Filter.MAX_PER_NODE:
            limit = task.placement.max_per_node
            return f"{have} {limit} replica{'s' if limit > 1 else ''} already (max replicas per node is {limit})"
        case Filter.ADDRESS:
            return f"can get no address on network {refusal.detail}"


def _missing(needs: str, free: str, where: str, plural: bool) -> str:
    return f"(needs {needs}; {'most free is ' if plural else ''}{free}{'' if plural else ' is free'} on {where})"


def _cpus(nano: int) -> str:
    return f"{max(0, nano) / 1e9:.2f}".rstrip("0").rstrip(".")


def size(count: int) -> str:
    """Bytes for people: 4.0 GiB."""
    value = float(max(0, count))
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
