"""Hosts that are lost, or restarted, in the middle of a rollout."""

from __future__ import annotations

import pytest
from tests.support.cluster import Cluster
from tests.unit.manager.rollout.build import COMPLETED, count, deployed, wanted

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def test_a_node_lost_in_the_middle_is_not_a_failure_of_the_version() -> None:
    cluster = deployed()
    cluster.deploy(wanted("v2-good"))
    cluster.run(2)
    new = next(t for t in cluster.serving() if t.spec.container.image == "v2-good")
    cluster.cut_node(new.node_id)
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.failures == 0
    assert count(cluster, "v2-good") == 4


def test_a_task_that_takes_the_place_of_a_lost_one_is_watched_anew() -> None:
    cluster = deployed(monitor=5)
    cluster.deploy(wanted("v2-good", monitor=5))
    cluster.run(3)
    first = cluster.rollout.slots[0].new_task_id
    cluster.cut_node(cluster.world.tasks[first].node_id)
    cluster.run(4)
    assert cluster.rollout.slots[0].new_task_id != first
    assert cluster.rollout.slots[0].phase == pb.SLOT_PHASE_MONITORING
    cluster.run(1.1)
    assert cluster.rollout.slots[0].phase == pb.SLOT_PHASE_DONE


def test_what_a_lost_node_tells_when_it_is_back_is_not_a_failure_either() -> None:
    cluster = deployed(monitor=30)
    cluster.deploy(wanted("v2-good", monitor=30))
    cluster.run(2)
    new = next(t for t in cluster.serving() if t.spec.container.image == "v2-good")
    cluster.cut_node(new.node_id)
    cluster.run(2)
    cluster.heal_node(new.node_id)
    cluster.fail(new.id)
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.failures == 0


def restart_host_of_a_new_task(cluster: Cluster) -> None:
    watched = next(p.new_task_id for p in cluster.rollout.slots if p.phase == pb.SLOT_PHASE_MONITORING)
    assert cluster.fail(watched, with_host=True)


@pytest.mark.parametrize("condition", [spec.RESTART_CONDITION_ANY, spec.RESTART_CONDITION_ON_FAILURE])
def test_a_host_that_restarts_is_no_fault_of_the_version(condition: spec.RestartCondition.ValueType) -> None:
    cluster = deployed()
    service = wanted("v2-good")
    service.task.restart.condition = condition
    cluster.deploy(service)
    cluster.run(1)
    restart_host_of_a_new_task(cluster)
    cluster.settle()
    assert cluster.rollout.state == COMPLETED and cluster.rollout.failures == 0
    assert count(cluster, "v2-good") == 4


def test_a_task_that_may_not_be_made_again_fails_its_rollout_though_it_ended_with_its_host() -> None:
    cluster = deployed()
    service = wanted("v2-good")
    service.task.restart.condition = spec.RESTART_CONDITION_NONE
    cluster.deploy(service)
    cluster.run(1)
    restart_host_of_a_new_task(cluster)
    cluster.settle()
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK
