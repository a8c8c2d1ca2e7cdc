from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.dispatcher import nodes
from pyswarm_manager.dispatcher.nodes import Facts, Limits, Verdict, register

LIMITS = Limits(down_after=15, apply_within=10)
HELLO = wire.Hello(node_id="n", address="10.0.0.1", description=pb.NodeDescription(hostname="h"))
NOW = 1000.0
READY = pb.Node(
    id="n", state=pb.NODE_STATE_READY, serving=True, address="10.0.0.1", description=HELLO.description, state_at=1
)
DOWN = pb.Node(id="n", state=pb.NODE_STATE_DOWN, address="10.0.0.1", description=HELLO.description)
CONNECTED = Facts(heard_at=NOW, hello=HELLO)


WALL = 5_000_000.0  # what the wall clock shows matters to nothing but the times that are stored


def judge(node: pb.Node, facts: Facts, limits: Limits, steady: float) -> Verdict:
    return nodes.judge(node, facts, limits, WALL, steady)


def test_a_new_node_is_active_and_not_ready_yet() -> None:
    hello = wire.Hello(node_id="n", address="10.0.0.1", labels={"a": "b"})
    node = register(Facts(heard_at=NOW, hello=hello, is_manager=True), 7, NOW)
    assert (node.id, node.number, node.state, node.serving) == ("n", 7, pb.NODE_STATE_UNKNOWN, False)
    assert node.spec.role == spec.NODE_ROLE_MANAGER
    assert node.spec.availability == spec.NODE_AVAILABILITY_ACTIVE
    assert node.spec.labels == {"a": "b"}


def test_silence_makes_it_down_once() -> None:
    facts = Facts(heard_at=NOW - 14.9)
    verdict = judge(READY, facts, LIMITS, NOW)
    assert verdict.node is None
    assert verdict.wake_in == pytest.approx(0.1)
    verdict = judge(READY, facts, LIMITS, NOW + 0.1)
    assert verdict.is_down and verdict.node is not None
    assert verdict.node.state == pb.NODE_STATE_DOWN
    assert not verdict.node.serving
    assert verdict.node.state_at == WALL
    again = judge(verdict.node, facts, LIMITS, NOW + 5)
    assert again.node is None and again.wake_in == pytest.approx(10.1), "then its permit is over"


def test_its_permit_is_over_once_it_was_silent_for_long_enough_for_this_leader() -> None:
    facts = Facts(heard_at=NOW)
    down = judge(READY, facts, LIMITS, NOW + 15).node
    assert down is not None and not down.permit_over
    assert judge(down, facts, LIMITS, NOW + 29.9).node is None
    verdict = judge(down, facts, LIMITS, NOW + 30)
    assert verdict.node is not None and verdict.node.permit_over
    assert judge(verdict.node, facts, LIMITS, NOW + 31) == Verdict(None, None, is_down=True)
    # What an earlier leader has heard or not counts for nothing, only that it has stored it.
    assert judge(down, replace(facts, heard_at=NOW + 28), LIMITS, NOW + 30).node is None


def test_a_node_returns_only_when_nothing_exclusive_is_left_there() -> None:
    over = pb.Node()
    over.CopyFrom(DOWN)
    over.permit_over = True
    back = replace(CONNECTED, caught_up=True)
    assert judge(over, replace(back, has_exclusive=True), LIMITS, NOW).node is None
    node = judge(over, back, LIMITS, NOW).node
    assert node is not None and node.state == pb.NODE_STATE_READY and not node.permit_over
    stuck = replace(CONNECTED, unapplied_since=NOW - 10)
    assert judge(over, replace(stuck, has_exclusive=True), LIMITS, NOW).node is None


def test_silence_counts_also_while_a_session_seems_open() -> None:
    verdict = judge(READY, replace(CONNECTED, heard_at=NOW - 20), LIMITS, NOW)
    assert verdict.is_down and verdict.node is not None


def test_a_node_that_returns_is_ready_when_it_has_applied_everything() -> None:
    assert judge(DOWN, CONNECTED, LIMITS, NOW).node is None
    node = judge(DOWN, replace(CONNECTED, caught_up=True), LIMITS, NOW).node
    assert node is not None
    assert (node.state, node.serving, node.state_message) == (pb.NODE_STATE_READY, True, "")


def test_a_node_that_returns_but_cannot_apply_is_ready_and_not_waited_for() -> None:
    stuck = replace(CONNECTED, unapplied_since=NOW - 10)
    verdict = judge(DOWN, stuck, LIMITS, NOW)
    assert verdict.is_stuck and verdict.node is not None
    assert (verdict.node.state, verdict.node.serving) == (pb.NODE_STATE_READY, False)
    again = judge(verdict.node, stuck, LIMITS, NOW + 1)
    assert again.node is None and again.is_stuck


def test_a_node_that_serves_and_reconnects_is_left_as_it_is_until_it_fails_to_apply() -> None:
    facts = replace(CONNECTED, unapplied_since=NOW)
    verdict = judge(READY, facts, LIMITS, NOW + 9)
    assert verdict.node is None
    assert verdict.wake_in == 1
    verdict = judge(READY, facts, LIMITS, NOW + 10)
    assert verdict.node is not None and not verdict.node.serving
    assert verdict.node.state_at == READY.state_at, "its state has not changed"


def test_what_the_agent_says_of_its_host_is_kept_up() -> None:
    hello = wire.Hello(node_id="n", address="10.0.0.2", description=pb.NodeDescription(hostname="h2", version="2"))
    node = judge(READY, replace(CONNECTED, hello=hello, caught_up=True), LIMITS, NOW).node
    assert node is not None
    assert (node.address, node.description.hostname, node.state) == ("10.0.0.2", "h2", pb.NODE_STATE_READY)


FACTS = st.builds(
    Facts,
    heard_at=st.floats(NOW - 30, NOW),
    hello=st.sampled_from([None, HELLO]),
    caught_up=st.booleans(),
    unapplied_since=st.none() | st.floats(NOW - 30, NOW),
)
NODES = st.builds(
    lambda state, serving: pb.Node(
        id="n", state=state, serving=serving, address="10.0.0.1", description=HELLO.description
    ),
    st.sampled_from(pb.NodeState.values()),
    st.booleans(),
)


@given(NODES, FACTS)
def test_what_was_decided_is_decided_again(node: pb.Node, facts: Facts) -> None:
    """Otherwise it would be written again and again."""
    verdict = judge(node, facts, LIMITS, NOW)
    if verdict.node is not None:
        assert verdict.node != node
        assert judge(verdict.node, facts, LIMITS, NOW).node is None
    if verdict.wake_in is not None:
        assert verdict.wake_in > 0


@given(NODES, FACTS)
def test_a_node_serves_only_when_it_is_ready_and_never_starts_to_without_everything(node, facts) -> None:
    after = judge(node, facts, LIMITS, NOW).node or node
    if after.serving and not node.serving:
        assert facts.caught_up and after.state == pb.NODE_STATE_READY
