"""A node leaves by its own wish: what it waits for, and what refuses it."""

from __future__ import annotations

import random

import pytest
from tests.support.manager import Cluster

from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.admissions import Admissions
from pyswarm_manager.clock import SystemClock
from pyswarm_manager.join.departures import Departures

MANAGER, WORKER = spec.NODE_ROLE_MANAGER, spec.NODE_ROLE_WORKER


class FakeMembers:
    def __init__(self) -> None:
        self.names: set[str] = set()

    async def has(self, node_id: str) -> bool:
        return node_id in self.names


def node(node_id: str, role: spec.NodeRole.ValueType) -> pb.Node:
    return pb.Node(id=node_id, number=1, spec=spec.NodeSpec(role=role), state=pb.NODE_STATE_READY)


def departures(cluster: Cluster, members: FakeMembers | None = None) -> Departures:
    admissions = Admissions(cluster.store, cluster.world, cluster.cache.wait_for, random.SystemRandom())
    return Departures(cluster.world, admissions, cluster.control().may_become, members, SystemClock())


async def test_its_tasks_move_first() -> None:
    async with Cluster.make(serve=False) as cluster:
        await cluster.put(node("w", WORKER))
        await cluster.put(pb.Task(id="t", node_id="w", status=pb.TaskStatus(state=pb.TASK_STATE_RUNNING)))
        leaving = departures(cluster)
        assert await leaving.leave("w", force=False, at_once=False) == "1 of its tasks have not moved elsewhere yet"
        assert cluster.world.nodes["w"].spec.availability == spec.NODE_AVAILABILITY_DRAIN
        assert await leaving.leave("w", force=False, at_once=True) == ""
        assert "w" not in cluster.world.nodes and "w" in cluster.world.removed
        assert await leaving.leave("w", force=False, at_once=False) == "", "asked again, it is done"


async def test_a_managers_etcd_goes_first() -> None:
    async with Cluster.make(serve=False) as cluster:
        await cluster.put(node("a", MANAGER))
        await cluster.put(node("b", MANAGER))
        await cluster.put(pb.Manager(id="b", address="10.0.0.2:2377"))
        members = FakeMembers()
        members.names = {"a", "b"}
        leaving = departures(cluster, members)
        assert "etcd" in await leaving.leave("a", force=False, at_once=False)
        assert cluster.world.nodes["a"].spec.role == WORKER, "so the leader removes its member"
        members.names = {"b"}
        assert await leaving.leave("a", force=False, at_once=False) == ""
        with pytest.raises(PreconditionFailed, match="only manager"):
            await leaving.leave("b", force=False, at_once=False)
        assert "b" in cluster.world.nodes


async def test_the_last_manager_that_lives_stays() -> None:
    async with Cluster.make(serve=False) as cluster:
        await cluster.put(node("a", MANAGER))
        await cluster.put(node("b", MANAGER))
        with pytest.raises(PreconditionFailed, match="only manager that lives"):
            await departures(cluster).leave("a", force=False, at_once=False)
