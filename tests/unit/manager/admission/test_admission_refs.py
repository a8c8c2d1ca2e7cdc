from __future__ import annotations

import pytest
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.errors import InvalidInput, NotFound, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api import refs


def world_with() -> FakeWorld:
    world = FakeWorld()
    web = build.service(build.service_spec("web"), service_id="abc123")
    world.put(web, build.service(build.service_spec("worker"), service_id="abd456"))
    world.put(build.service(build.service_spec("abd"), service_id="zzz"))
    world.put(build.task("t1", web, slot=1, created_at=1), build.task("t2", web, slot=1, created_at=2))
    everywhere = build.service(build.service_spec("log", mode=spec.SERVICE_MODE_GLOBAL, replicas=0), service_id="log1")
    world.put(everywhere, build.task("g1", everywhere, slot=0, node_id="n1"))
    one, two, three = build.node("n1"), build.node("n2"), build.node("n3")
    one.description.hostname = "host-1"
    two.description.hostname = three.description.hostname = "twin"
    world.put(one, two, three)
    world.put(pb.Network(id="netid", spec=spec.NetworkSpec(name="back", subnet="10.1.0.0/24")))
    return world


@pytest.mark.parametrize(("ref", "found"), [("web", "abc123"), ("abc123", "abc123"), ("abc", "abc123"), ("abd", "zzz")])
def test_by_name_id_or_prefix_and_a_name_wins(ref: str, found: str) -> None:
    assert refs.service(world_with(), ref).id == found


def test_other_kinds() -> None:
    world = world_with()
    assert refs.node(world, "host-1").id == "n1"
    assert refs.network(world, "net").id == "netid"
    assert refs.task(world, "web.1").id == "t2", "the newest of its slot"
    assert refs.task(world, "t1").id == "t1"
    assert refs.task(world, "log.host-1").id == "g1"
    assert refs.task(world, "log.n1").id == "g1"
    assert refs.service_or_task(world, "web").id == "abc123"
    assert refs.service_or_task(world, "web.1").id == "t2"


def test_ambiguous_prefix_lists_candidates() -> None:
    with pytest.raises(PreconditionFailed) as raised:
        refs.service(world_with(), "ab")
    assert str(raised.value) == (
        "'ab' is the beginning of an id of 2 services: abc123 (web), abd456 (worker). Give more of the id."
    )


def test_ambiguous_hostname_lists_candidates() -> None:
    with pytest.raises(PreconditionFailed, match=r"'twin' is the name of 2 nodes: n2 \(twin\), n3 \(twin\)"):
        refs.node(world_with(), "twin")


def test_unknown_says_what_was_meant() -> None:
    world = world_with()
    with pytest.raises(NotFound) as raised:
        refs.service(world, "wrker")
    assert str(raised.value) == "There is no service 'wrker'. Did you mean worker?"
    with pytest.raises(NotFound) as raised:
        refs.network(world, "xyz")
    assert str(raised.value) == "There is no network 'xyz'."
    with pytest.raises(NotFound, match=r"no service or task 'web.7'. Did you mean web.1"):
        refs.service_or_task(world, "web.7")
    with pytest.raises(InvalidInput, match="No node is named"):
        refs.node(world, "")
