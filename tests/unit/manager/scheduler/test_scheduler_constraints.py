from __future__ import annotations

import pytest

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.scheduler.constraints import Constraint, matches, parse

NODE = pb.Node(
    id="abc",
    spec=spec.NodeSpec(role=spec.NODE_ROLE_MANAGER, labels={"zone": "A", "com.example/disk": "ssd"}),
    description=pb.NodeDescription(hostname="Host-1", platform=spec.Platform(os="linux", architecture="x86_64")),
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("node.id==abc", True),
        ("node.id!=abc", False),
        ("node.hostname==host-1", True),
        ("node.hostname == host-2", False),
        ("node.role==manager", True),
        ("NODE.ROLE==Worker", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==amd64", True),
        ("node.platform.arch!=x86_64", False),
        ("node.labels.zone==a", True),
        ("node.labels.Zone==a", False),
        ("node.labels.zone!=b", True),
        ("node.labels.missing!=b", True),
        ("node.labels.missing==b", False),
        ("node.labels.com.example/disk==ssd", True),
    ],
)
def test_holds(text: str, holds: bool) -> None:
    assert matches([text], NODE) is holds


def test_all_must_hold() -> None:
    assert matches(["node.labels.zone==a", "node.role==manager"], NODE)
    assert not matches(["node.labels.zone==a", "node.role==worker"], NODE)
    assert matches([], NODE)


def test_first_operator_splits() -> None:
    assert parse("node.labels.a!=b==c") == Constraint("node.labels.a", False, "b==c")
    assert str(parse(" node.labels.a == b ")) == "node.labels.a==b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node.labels.zone=a", "neither == nor !="),
        ("", "neither == nor !="),
        ("node.labels.zone==", "no value"),
        ("node.labels.==a", "names no valid label"),
        ("node.colour==red", "'node.colour'"),
        ("engine.labels.a==b", "node update --label-add"),
        ("node.role==boss", "worker or manager"),
        ("==a", "which nodes do not have"),
        ("node.labels.a==b\x07", "cannot be printed"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse(text)
    assert not matches([text], NODE)
