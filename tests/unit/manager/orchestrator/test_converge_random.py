"""Random histories: the design's invariants hold after every step, and when faults end all is as it was asked for.

What is checked at every write is in `tests.support.cluster`: states only advance (9), ids are used once and a task
starts once (2), an address is held by one task and is in nobody's balancer when it is given again (7), nothing is
released that a live balancer has (8).
"""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.explore import FAULTS, PARTLY, USER, WORK, Explorer, Step

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

START_FIRST, STOP_FIRST = spec.UPDATE_ORDER_START_FIRST, spec.UPDATE_ORDER_STOP_FIRST
ROLLBACK = spec.FAILURE_ACTION_ROLLBACK


@st.composite
def histories(draw: st.DrawFn, *names: str) -> list[Step]:
    """Evenly mixed, which lists of drawn steps are not; a failing one is shortened all the same."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    steps = [(rng.choice(WORK * 3 + names), rng.randrange(64)) for _ in range(250)]
    return steps[: draw(st.integers(0, 250))]


@settings(max_examples=60, deadline=None)
@given(
    history=histories(*PARTLY, *USER, *FAULTS),
    is_global=st.booleans(),
    order=st.sampled_from([START_FIRST, STOP_FIRST]),
    action=st.sampled_from([ROLLBACK, spec.FAILURE_ACTION_PAUSE, spec.FAILURE_ACTION_CONTINUE]),
    parallelism=st.integers(0, 3),
    delay=st.sampled_from([0.0, 7.0]),
    host_port=st.booleans(),
    real=st.booleans(),
)
def test_faults_of_every_kind(
    history: list[Step],
    is_global: bool,
    order: spec.UpdateOrder.ValueType,
    action: spec.FailureAction.ValueType,
    parallelism: int,
    delay: float,
    host_port: bool,
    real: bool,
) -> None:
    explorer = Explorer(
        is_global=is_global,
        order=order,
        action=action,
        parallelism=parallelism,
        delay=delay,
        host_port=host_port,
        real=real,
    )
    for step in history:
        explorer.step(step)
    explorer.finish()


@settings(max_examples=60, deadline=None)
@given(
    history=histories(*PARTLY, *USER, *FAULTS, "cut", "end_permit", "end_permit"),
    order=st.sampled_from([START_FIRST, STOP_FIRST]),
    action=st.sampled_from([ROLLBACK, spec.FAILURE_ACTION_PAUSE, spec.FAILURE_ACTION_CONTINUE]),
    parallelism=st.integers(0, 3),
)
def test_two_exclusive_tasks_never_run_in_one_slot(
    history: list[Step],
    order: spec.UpdateOrder.ValueType,
    action: spec.FailureAction.ValueType,
    parallelism: int,
) -> None:
    """Whatever nobody hears of: containers on nodes that are cut off run on until their permit is over."""
    explorer = Explorer(order=order, action=action, parallelism=parallelism, exclusive=True)
    for step in history:
        explorer.step(step)
    explorer.finish()
    explorer.check_exclusive()


@settings(max_examples=60, deadline=None)
@given(
    history=histories(*PARTLY, *USER, "drain_node", "activate_node", "relabel"),
    order=st.sampled_from([START_FIRST, STOP_FIRST]),
    action=st.sampled_from([ROLLBACK, spec.FAILURE_ACTION_PAUSE]),
    parallelism=st.integers(1, 3),
    delay=st.sampled_from([0.0, 7.0]),
)
def test_without_faults_enough_tasks_serve_at_all_times(
    history: list[Step],
    order: spec.UpdateOrder.ValueType,
    action: spec.FailureAction.ValueType,
    parallelism: int,
    delay: float,
) -> None:
    """Whatever the user asks for, bad images and drained nodes included: healthy >= replicas - max unavailable, where
    replicas is the least that was asked for since everything was last as it should be."""
    explorer = Explorer(order=order, action=action, parallelism=parallelism, delay=delay)
    cluster = explorer.cluster
    cluster.settle()
    unavailable = parallelism if order == STOP_FIRST else 0
    floor = explorer.replicas
    for step in history:
        explorer.step(step)
        replicas = cluster.service.spec.replicas
        floor = min(floor, replicas)
        serving = len(cluster.serving())
        assert serving >= floor - unavailable, cluster.story()
        done = cluster.rollout.finished_at and cluster.rollout.state != pb.ROLLOUT_STATE_PAUSED
        if done and serving == replicas:
            floor = replicas
    explorer.finish()


@settings(max_examples=40, deadline=None)
@given(
    history=histories(*PARTLY),
    kind=st.sampled_from(["crashes", "unknown", "hangs"]),
    replicas=st.integers(0, 6),
    order=st.sampled_from([START_FIRST, STOP_FIRST]),
    parallelism=st.integers(0, 3),
)
def test_a_failed_update_ends_exactly_where_it_began(
    history: list[Step], kind: str, replicas: int, order: spec.UpdateOrder.ValueType, parallelism: int
) -> None:
    # Long, for in some histories nobody does anything for minutes.
    explorer = Explorer(order=order, parallelism=parallelism, deadline=2000)
    cluster = explorer.cluster
    cluster.settle()
    before = cluster.service.spec.SerializeToString(deterministic=True)
    kept = {t.id for t in cluster.serving()}
    explorer.image, explorer.replicas = f"v1-{kind}", replicas
    explorer.deploy()
    for step in history:
        explorer.step(step)
    cluster.settle(rounds=1000, until=6000)
    if replicas == 0:
        assert cluster.rollout.state == pb.ROLLOUT_STATE_COMPLETED and not cluster.living()
        return
    assert cluster.rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK, cluster.story()
    assert cluster.service.spec.SerializeToString(deterministic=True) == before
    assert len(cluster.serving()) == len(cluster.living()) == 3, cluster.story()
    assert {t.spec.container.image for t in cluster.serving()} == {"v0-good"}
    if order == START_FIRST and replicas >= 3:
        assert {t.id for t in cluster.serving()} == kept, "a healthy task of the old version was touched"


@settings(max_examples=30, deadline=None)
@given(history=histories(*PARTLY, *USER, *FAULTS))
def test_a_removed_service_leaves_nothing_whatever_came_before(history: list[Step]) -> None:
    explorer = Explorer()
    for step in history:
        explorer.step(step)
    explorer.cluster.remove()
    explorer.calm_down()
    explorer.cluster.settle()
    world = explorer.cluster.world
    assert not (world.services or world.tasks or world.rollouts), explorer.cluster.story()


def test_what_replaces_an_exclusive_task_waits_until_its_node_has_ended_it() -> None:
    explorer = Explorer(exclusive=True)
    cluster = explorer.cluster
    cluster.settle()
    task_id, node = next(iter(cluster.running.items()))
    slot = cluster.world.tasks[task_id].slot
    cluster.cut_node(node)
    _go_on(explorer)
    waiting = [t for t in cluster.of_slot(slot) if t.desired_state == pb.TASK_STATE_READY]
    assert [t.status.state for t in waiting] == [pb.TASK_STATE_READY], "it is prepared, and not started"
    assert cluster.running[task_id] == node
    cluster.end_permit(node)
    _go_on(explorer)
    assert cluster.world.tasks[task_id].status.state == pb.TASK_STATE_ORPHANED
    assert waiting[0].id in cluster.running
    cluster.heal_node(node)
    explorer.finish()


def test_a_node_that_returns_in_time_keeps_its_exclusive_task_from_being_doubled() -> None:
    explorer = Explorer(exclusive=True)
    cluster = explorer.cluster
    cluster.settle()
    _, node = next(iter(cluster.running.items()))
    cluster.cut_node(node)
    _go_on(explorer)
    cluster.heal_node(node)
    _go_on(explorer)
    explorer.finish()
    assert not any(t.status.state == pb.TASK_STATE_ORPHANED for t in cluster.world.tasks.values())


def _go_on(explorer: Explorer) -> None:
    """For a minute; what must hold is looked at after each step."""
    for number in range(40):
        for name in ("converge", "schedule", "agents", "acknowledge_all", "drain", "tick"):
            explorer.step((name, number))
