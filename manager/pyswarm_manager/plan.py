"""What planners take and return.

A planner is a plain function `(world, key, now, rng …) -> Plan`: no asyncio, grpc, clock or file. It never changes a
message that it was given: it copies (`pyswarm_manager.plan.changed`) and puts the copy into the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb

T = TypeVar("T", bound=Stored)


class World(Protocol):
    """A consistent, read-only view of all stored objects as of `revision`. Messages carry their `version`."""

    @property
    def revision(self) -> int: ...
    @property
    def services(self) -> Mapping[str, pb.Service]: ...
    @property
    def tasks(self) -> Mapping[str, pb.Task]: ...
    @property
    def nodes(self) -> Mapping[str, pb.Node]: ...
    @property
    def networks(self) -> Mapping[str, pb.Network]: ...
    @property
    def rollouts(self) -> Mapping[str, pb.Rollout]: ...
    @property
    def auths(self) -> Mapping[str, pb.RegistryAuth]: ...
    def tasks_of_service(self, service_id: str) -> Sequence[pb.Task]: ...
    def tasks_of_node(self, node_id: str) -> Sequence[pb.Task]: ...
    def rollouts_of_service(self, service_id: str) -> Sequence[pb.Rollout]: ...


class Acks(Protocol):
    """What each node has confirmed, from the dispatcher's memory."""

    def applied(self, node_id: str) -> int:
        """The highest endpoint revision that this node has in its kernel; 0 = none confirmed to this leader."""
        ...


@dataclass(frozen=True, slots=True)
class Put:
    """Create (message.version == 0) or replace exactly the version that the message carries."""

    message: Stored


@dataclass(frozen=True, slots=True)
class Delete:
    message: Stored


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` are carried out in order; each step is one transaction (≤ 127 writes, no key twice), and the plan must be
    safe when only the first k of them happen. `wake_at`: look again at this unix time though nothing has changed."""

    steps: tuple[tuple[Write, ...], ...] = ()
    wake_at: float | None = None
    notes: tuple[str, ...] = field(default=())  # why, for the log and for `--plan`

    def __bool__(self) -> bool:
        return any(self.steps)


def earliest(*times: float | None) -> float | None:
    return min((t for t in times if t is not None), default=None)


def changed(message: T) -> T:
    """A copy to modify and put into a plan."""
    copy = type(message)()
    copy.CopyFrom(message)  # type: ignore[arg-type]
    return copy


def puts(messages: Iterable[Stored]) -> tuple[Write, ...]:
    return tuple(Put(m) for m in messages)
