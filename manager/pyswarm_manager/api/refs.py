"""Finding what a user names: by id, by name, or by the beginning of an id, in this order.

NotFound says what was probably meant; PreconditionFailed lists what an ambiguous reference may mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from pyswarm_core.errors import InvalidInput, NotFound, PreconditionFailed
from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import display_name

T = TypeVar("T", bound=Stored)
_SHOWN = 5  # candidates in a message
_SHORT = 12  # characters of an id in a message, as tables show it


def service(world: World, ref: str) -> pb.Service:
    return _find("service", world.services, ref, lambda service: service.spec.name)


def node(world: World, ref: str) -> pb.Node:
    """By hostname, which two nodes may share."""
    return _find("node", world.nodes, ref, lambda node: node.description.hostname)


def network(world: World, ref: str) -> pb.Network:
    return _find("network", world.networks, ref, lambda network: network.spec.name)


def task(world: World, ref: str) -> pb.Task:
    """web.1 is the newest task of that slot; of a global service web.<node's hostname or id> works too."""
    found = world.tasks.get(ref)
    if found is not None:
        return found
    named = [candidate for candidate in world.tasks.values() if ref in _task_names(world, candidate)]
    if named:
        return max(named, key=lambda candidate: (candidate.created_at, candidate.id))
    return _find("task", world.tasks, ref, display_name)


def service_or_task(world: World, ref: str) -> pb.Service | pb.Task:
    """For logs. A service's name wins over the beginning of a task's id."""
    try:
        return service(world, ref)
    except NotFound as no_service:
        try:
            return task(world, ref)
        except NotFound:
            names = [*(s.spec.name for s in world.services.values()), *map(display_name, world.tasks.values())]
            raise NotFound(_missing("service or task", ref, names)) from no_service


def _task_names(world: World, candidate: pb.Task) -> set[str]:
    names = {display_name(candidate)}
    if not candidate.slot and candidate.node_id in world.nodes:
        names.add(f"{candidate.service_name}.{world.nodes[candidate.node_id].description.hostname}")
    return names


def _find(kind: str, objects: Mapping[str, T], ref: str, name_of: Callable[[T], str]) -> T:
    if not ref:
        raise InvalidInput(f"No {kind} is named: give a name, an id or the beginning of an id.")
    exact = objects.get(ref)
    if exact is not None:
        return exact
    named = [candidate for candidate in objects.values() if name_of(candidate) == ref]
    found = named or [candidate for candidate in objects.values() if candidate.id.startswith(ref)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(_missing(kind, ref, map(name_of, objects.values())))
    what = "name" if named else "beginning of an id"
    shown = max(_SHORT, len(ref) + 4)
    listed = [f"{candidate.id[:shown]} ({name_of(candidate)})" for candidate in sorted(found, key=lambda c: c.id)]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    raise PreconditionFailed(
        f"{ref!r} is the {what} of {len(found)} {kind}s: {', '.join(listed[:_SHOWN])}{more}. Give more of the id."
    )


def _missing(kind: str, ref: str, names: Iterable[str]) -> str:
    close = get_close_matches(ref, sorted({name for name in names if name}), n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no {kind} {ref!r}.{hint}"
