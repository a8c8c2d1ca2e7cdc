"""What is told of managers: to agents (who manages), and in `node ls` (what is missing)."""

from __future__ import annotations

import pytest

from pyswarm_core.etcd.cluster import Member
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.views import node_view
from pyswarm_manager.roster import api_addresses

MANAGER, WORKER = spec.NODE_ROLE_MANAGER, spec.NODE_ROLE_WORKER


def node(node_id: str, role: spec.NodeRole.ValueType, number: int) -> pb.Node:
    return pb.Node(id=node_id, address=f"10.0.0.{number}", spec=spec.NodeSpec(role=role), role=role)


def test_who_manages() -> None:
    nodes = {n.id: n for n in (node("a", MANAGER, 1), node("b", MANAGER, 2), node("w", WORKER, 3))}
    living = {"a": pb.Manager(id="a", address="10.0.0.1:9999")}
    assert api_addresses(nodes, living) == ("10.0.0.1:9999", "10.0.0.2:2377"), "b is away, and may be the first back"
    living["new"] = pb.Manager(id="new", address="10.0.0.9:2377")
    assert "10.0.0.9:2377" in api_addresses(nodes, living), "its agent has not come yet"
    living["w"] = pb.Manager(id="w", address="10.0.0.3:2377")
    assert "10.0.0.3:2377" not in api_addresses(nodes, living), "it is on its way out"
    assert api_addresses({"w": nodes["w"]}, {"w": living["w"]}) == ("10.0.0.3:2377",), "unless it is all there is"


def member(name: str, number: int, *, learner: bool = False) -> Member:
    return Member(number, name, (f"https://10.0.0.{number}:2380",), (), learner)


@pytest.mark.parametrize(
    ("role", "living", "members", "message"),
    [
        (MANAGER, True, [member("a", 1)], ""),
        (MANAGER, True, None, ""),
        (MANAGER, False, [member("a", 1)], "does not show that it lives"),
        (MANAGER, False, [], "no etcd member yet"),
        (MANAGER, False, [member("", 1)], "has not started yet"),
        (MANAGER, True, [member("a", 1, learner=True)], "no vote yet"),
        (WORKER, False, [], ""),
        (WORKER, True, [], "manager still runs"),
        (WORKER, False, [member("a", 1)], "still a member"),
    ],
)
def test_what_is_missing(
    role: spec.NodeRole.ValueType, living: bool, members: list[Member] | None, message: str
) -> None:
    view = node_view(node("a", role, 1), None, {"a": "10.0.0.1:2377"} if living else {}, members)
    assert message in view.manager.message and bool(message) == bool(view.manager.message)
    assert bool(view.manager.address) == (role == MANAGER)
