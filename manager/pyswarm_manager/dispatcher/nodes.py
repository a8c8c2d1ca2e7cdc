"""What is stored of a node, from what the leader hears of it. Pure.

A heartbeat is not stored: only transitions are. A node becomes READY when it has applied a complete endpoint set (or
has failed to within the time for it: then it is READY but not serving, and nobody waits for it), so a node that
returns takes no part in anything before its balancer is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import changed, earliest

# Seconds without any message after which no exclusive task can live on the node: its agent stops them 15 s after it
# sent the last heartbeat that was acknowledged, and its fuses kill them after 25 (pyswarm_agent.permit). The rest is
# margin, for clocks that run at different speeds.
PERMIT_OVER = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds."""

    down_after: float = 15.0  # without any message
    permit_over_after: float = PERMIT_OVER
    apply_within: float = 10.0  # an endpoint update, from its sending


@dataclass(frozen=True, slots=True)
class Facts:
    """What this leader has seen of one node; it starts with nothing but the time at which it began to lead.

    In steady seconds, of a clock that nobody sets: a wall clock that is put forward must not make all nodes silent."""

    heard_at: float  # of the last message; when it began to lead, if there was none: that is the grace period
    hello: wire.Hello | None = None  # of the open session
    is_manager: bool = False  # by its certificate
    caught_up: bool = False  # this session has applied a complete endpoint set
    has_exclusive: bool = False  # tasks of that kind that are not over, by what is stored
    unapplied_since: float | None = None  # when the oldest update that it has not confirmed was sent


@dataclass(frozen=True, slots=True)
class Verdict:
    """`node`: what is to be stored, None = what is there is right. `wake_in`: seconds until it may be otherwise.
    `is_stuck`: it does not apply what it was sent."""

    node: pb.Node | None
    wake_in: float | None
    is_down: bool = False
    is_stuck: bool = False


def register(facts: Facts, number: int, now: float) -> pb.Node:
    """A node that was never here before. `facts.hello` is set."""
    hello = facts.hello
    assert hello is not None
    role = spec.NODE_ROLE_MANAGER if facts.is_manager else spec.NODE_ROLE_WORKER
    node = pb.Node(
        id=hello.node_id,
        created_at=now,
        spec=spec.NodeSpec(availability=spec.NODE_AVAILABILITY_ACTIVE, labels=hello.labels, role=role),
        state=pb.NODE_STATE_UNKNOWN,
        state_message="registered; waits for its load balancer to be set up",
        state_at=now,
        number=number,
    )
    _describe(node, facts)
    return node


def judge(node: pb.Node, facts: Facts, limits: Limits, now: float, steady: float) -> Verdict:
    """`node` as it is stored; the time in unix seconds, and in those of `facts`."""
    silent_in = facts.heard_at + limits.down_after - steady
    if silent_in <= 0:
        return _silent(node, facts.heard_at + max(limits.permit_over_after, limits.down_after) - steady, limits, now)
    if facts.hello is None:
        return Verdict(None, silent_in)
    stuck_in = None if facts.unapplied_since is None else facts.unapplied_since + limits.apply_within - steady
    is_stuck = stuck_in is not None and stuck_in <= 0
    result = changed(node)
    _describe(result, facts)
    if is_stuck:
        message = f"its agent does not apply endpoints (for {limits.apply_within:g} s): nobody waits for it"
        if node.serving or node.state != pb.NODE_STATE_READY:
            _turn(result, pb.NODE_STATE_READY, message, now)
            result.serving = False
    elif facts.caught_up and not (node.serving and node.state == pb.NODE_STATE_READY):
        _turn(result, pb.NODE_STATE_READY, "", now)
        result.serving = True
    wake_in = earliest(silent_in, None if is_stuck else stuck_in)
    if result.state == pb.NODE_STATE_READY and node.permit_over:
        if facts.has_exclusive:
            # What was given up for it must be stored as such before it may run anything again.
            return Verdict(None, wake_in, is_stuck=is_stuck)
        result.permit_over = False
    return Verdict(result if result != node else None, wake_in, is_stuck=is_stuck)


def _describe(node: pb.Node, facts: Facts) -> None:
    assert facts.hello is not None
    node.description.CopyFrom(facts.hello.description)
    node.address = facts.hello.address
    node.role = spec.NODE_ROLE_MANAGER if facts.is_manager else spec.NODE_ROLE_WORKER


def _silent(node: pb.Node, over_in: float, limits: Limits, now: float) -> Verdict:
    result = changed(node)
    if node.state != pb.NODE_STATE_DOWN:
        _turn(result, pb.NODE_STATE_DOWN, f"no word from its agent for {limits.down_after:g} s", now)
        result.serving = False
    result.permit_over = node.permit_over or over_in <= 0
    wake_in = None if result.permit_over else over_in
    return Verdict(result if result != node else None, wake_in, is_down=True)


def _turn(node: pb.Node, state: pb.NodeState.ValueType, message: str, now: float) -> None:
    node.state_message = message
    if node.state != state:
        node.state = state
        node.state_at = now
