"""A leader whose view of the store stands still plans again on what it planned on before."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.support import build
from tests.support.cluster import Cluster
from tests.unit.manager.rollout.build import deployed, wanted

from pyswarm_core.errors import Conflict
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator import converge
from pyswarm_manager.plan import Plan


def a_batch_after_its_delay() -> Cluster:
    cluster = deployed(delay=30)
    cluster.deploy(wanted("v2-good", delay=30))
    while not cluster.rollout.slots or cluster.rollout.slots[0].phase != pb.SLOT_PHASE_DONE:
        cluster.run(0.5)
    cluster.now += 30
    return cluster


def a_drained_node() -> Cluster:
    cluster = deployed()
    cluster.set_availability("n1", spec.NODE_AVAILABILITY_DRAIN)
    return cluster


def a_node_that_is_new_to_a_global_service() -> Cluster:
    cluster = Cluster(1)
    cluster.deploy(build.service_spec(mode=spec.SERVICE_MODE_GLOBAL))
    cluster.settle()
    cluster.add_node("n4", 4)
    return cluster


def a_task_that_died() -> Cluster:
    cluster = deployed()
    cluster.fail(cluster.serving()[0].id)
    return cluster


@pytest.mark.parametrize(
    "make", [a_batch_after_its_delay, a_drained_node, a_node_that_is_new_to_a_global_service, a_task_that_died]
)
def test_two_plans_on_one_world_cannot_both_create(make: Callable[[], Cluster]) -> None:
    cluster = make()

    def plan(seed: int) -> Plan:
        return converge.plan(cluster.world, cluster.acks, "svc", cluster.now, random.Random(seed))

    first, second = plan(101), plan(102)
    before = len(cluster.world.tasks)
    cluster.world.apply(first)
    made = len(cluster.world.tasks) - before
    assert made > 0
    with pytest.raises(Conflict):
        cluster.world.apply(second)
    assert len(cluster.world.tasks) == before + made
