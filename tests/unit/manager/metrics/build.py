"""A world to count, and a manager's metrics over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.support.scrape import Scrape, parse

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import metrics
from pyswarm_manager.world import CachedWorld

NOW = 1_700_000_000.0


def figures(**changes: Any) -> metrics.Figures:
    async def no_managers() -> Sequence[pb.Leader]:
        return []

    made = metrics.Figures(
        is_leader=lambda: True,
        leader_known=lambda: True,
        is_connected=lambda: True,
        unapplied=dict,
        queues=lambda: {"loops": 2},
        managers=no_managers,
    )
    return replace(made, **changes)


class World(CachedWorld):
    """Changed by hand, one object a revision."""

    def put(self, *messages: Any) -> None:
        for message in messages:
            kind = type(message).__name__.lower()
            self.on_change(kind, message.id, self._objects[kind].get(message.id), message)
        self.on_revision(self.revision + 1)

    def delete(self, message: Any) -> None:
        kind = type(message).__name__.lower()
        self.on_change(kind, message.id, self._objects[kind][message.id], None)
        self.on_revision(self.revision + 1)


def node(name: str, **fields: Any) -> pb.Node:
    fields.setdefault("state", pb.NODE_STATE_READY)
    fields.setdefault("serving", True)
    made = pb.Node(id=f"{name}-id", number=1, address="10.90.0.11", **fields)
    made.description.MergeFrom(
        pb.NodeDescription(hostname=name, version="1.2", nano_cpus=4_000_000_000, memory=1 << 30)
    )
    return made


def service(name: str, replicas: int = 1, **fields: Any) -> pb.Service:
    fields.setdefault("spec_version", 1)
    made = pb.Service(id=f"{name}-id", rollout_id=f"{name}-rollout", **fields)
    made.spec.MergeFrom(spec.ServiceSpec(name=name, replicas=replicas))
    return made


def task(name: str, number: int = 1, node: str = "host-1", **fields: Any) -> pb.Task:
    """Running and confirmed, unless told otherwise."""
    fields.setdefault("status", pb.TaskStatus(state=pb.TASK_STATE_RUNNING, at=NOW - 100))
    fields.setdefault("desired_state", pb.TASK_STATE_RUNNING)
    fields.setdefault("spec_version", 1)
    fields.setdefault("balanced_at", NOW - 90)
    fields.setdefault("created_at", NOW - 101)
    return pb.Task(
        id=fields.pop("id", f"{name}-{number}"),
        service_id=f"{name}-id",
        service_name=name,
        slot=number,
        node_id=f"{node}-id" if node else "",
        addresses=[pb.TaskAddress(network_id="net-id", address=f"10.128.64.{number}")],
        **fields,
    )


async def scraped(made: metrics.Metrics) -> Scrape:
    return parse((await made.text()).decode())
