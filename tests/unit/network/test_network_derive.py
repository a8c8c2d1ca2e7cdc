from __future__ import annotations

from dataclasses import replace

import pytest

from pyswarm_agent.network import derive
from pyswarm_agent.network.derive import Memory, overlay
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_agent.network.overlay import TABLE_BASE, Address, Device, Forward, Neighbour, Route
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_proxy.state import Backend, HostState, Pool, Proto, Redirect, SourceChecks

NETWORK = pb.Network(
    id="net",
    vni=4100,
    vip_range="10.1.0.0/18",
    spec=spec.NetworkSpec(subnet="10.1.0.0/16"),
    blocks=[
        pb.Block(node_id="n1", node_number=1, cidr="10.1.64.0/24", node_address="10.9.0.1"),
        pb.Block(node_id="n2", node_number=2, cidr="10.1.65.0/24", node_address="10.9.0.2"),
    ],
)


CHECKS = SourceChecks()


def host_state(given: NetworkInputs, memory: Memory) -> HostState:
    return derive.host_state(given, memory, CHECKS)


def node(number: int) -> wire.NodeAddress:
    return wire.NodeAddress(node_id=f"n{number}", number=number, address=f"10.9.0.{number}")


def endpoint(task: str, on: int, last: int, *, leaving: bool = False, slot: int = 0, weight: int = 1) -> ep.Endpoint:
    return ep.Endpoint(
        task_id=task,
        node_id=f"n{on}",
        slot=slot,
        weight=weight,
        addresses=[pb.TaskAddress(network_id="net", address=f"10.1.{63 + on}.{last}")],
        state=ep.ENDPOINT_STATE_LEAVING if leaving else ep.ENDPOINT_STATE_SERVING,
    )


def web(*endpoints: ep.Endpoint, hold: bool = False, service_id: str = "web") -> ep.ServiceEndpoints:
    return ep.ServiceEndpoints(
        service_id=service_id,
        name=service_id,
        vips=[pb.Vip(network_id="net", address="10.1.0.2")],
        ports=[spec.Port(published=8080, target=80)],
        networks=[spec.NetworkAttachment(network_id="net")],
        endpoints=endpoints,
        hold=hold,
    )


def task(name: str, last: int, **kwargs: object) -> pb.Task:
    state = kwargs.pop("state", pb.TASK_STATE_RUNNING)
    return pb.Task(
        id=name,
        service_id="web",
        node_id="n1",
        addresses=[pb.TaskAddress(network_id="net", address=f"10.1.64.{last}")],
        status=pb.TaskStatus(state=state),  # type: ignore[arg-type]
        **kwargs,  # type: ignore[arg-type]
    )


def inputs(*services: ep.ServiceEndpoints, tasks: tuple[pb.Task, ...] = (), **kwargs: object) -> NetworkInputs:
    made = NetworkInputs(
        node_id="n1",
        node_number=1,
        nodes=[node(1), node(2), node(3)],
        networks={"net": NETWORK},
        endpoints={s.service_id: s for s in services},
        tasks={t.id: t for t in tasks},
    )
    return replace(made, **kwargs)  # type: ignore[arg-type]


def pool_of(given: NetworkInputs) -> Pool:
    return host_state(given, Memory()).services["web"].vips[0].pool


def test_a_service_is_balanced_over_its_serving_endpoints_in_the_same_order_everywhere() -> None:
    endpoints = [endpoint("b", 2, 6, slot=2, weight=3), endpoint("a", 1, 5, slot=1), endpoint("c", 2, 7, leaving=True)]
    wanted = Pool((Backend("10.1.64.5"), Backend("10.1.65.6", 3)))
    assert pool_of(inputs(web(*endpoints))) == wanted
    assert pool_of(inputs(web(*reversed(endpoints)))) == wanted
    service = host_state(inputs(web(*endpoints)), Memory()).services["web"]
    assert service.leaving == {"10.1.65.7"}
    port = service.published[0]
    assert (port.proto, port.port, port.target, port.pool) == (Proto.TCP, 8080, 80, wanted)


def test_an_order_to_leave_waits_for_the_endpoints_that_say_the_same() -> None:
    """Others may leave in that revision: a redirect on the order alone would go to them, and be redirected again."""
    ordered = (task("a", 5, leaving=True),)
    early = inputs(web(endpoint("a", 1, 5), endpoint("b", 2, 6)), tasks=ordered)
    assert pool_of(early) == Pool((Backend("10.1.64.5"), Backend("10.1.65.6")))
    assert host_state(early, Memory()).redirects == ()
    told = inputs(web(endpoint("a", 1, 5, leaving=True), endpoint("b", 2, 6)), tasks=ordered)
    assert pool_of(told) == Pool((Backend("10.1.65.6"),))
    assert [r.task_id for r in host_state(told, Memory()).redirects] == ["a"]


def test_what_this_host_knows_better_counts_before_the_managers_say_so() -> None:
    service = web(endpoint("a", 1, 5), endpoint("b", 2, 6))
    for given in (
        inputs(service, tasks=(task("a", 5, state=pb.TASK_STATE_FAILED),)),
        inputs(service, tasks=(task("a", 5),), dead=frozenset({"a"})),
    ):
        assert pool_of(given) == Pool((Backend("10.1.65.6"),))
        (redirect,) = host_state(given, Memory()).redirects
        assert (redirect.task_id, redirect.address, redirect.pool.backends) == (
            "a",
            "10.1.64.5",
            (Backend("10.1.65.6"),),
        )
        assert redirect.dead == (not given.tasks["a"].leaving)


def test_a_redirect_lasts_until_it_is_settled() -> None:
    service = web(endpoint("a", 1, 5, leaving=True), endpoint("b", 2, 6))
    wanted = (Redirect("a", "10.1.64.5", Pool((Backend("10.1.65.6"),))),)
    assert host_state(inputs(service), Memory()).redirects == wanted  # even if the task itself is forgotten here
    assert host_state(inputs(service, settled=frozenset({"a"})), Memory()).redirects == ()
    gone = task("a", 5, leaving=True)
    assert host_state(inputs(tasks=(gone,)), Memory()).redirects == (Redirect("a", "10.1.64.5", Pool()),)
    gone.addresses_free = True
    assert host_state(inputs(tasks=(gone,)), Memory()).redirects == ()


def test_a_task_that_leaves_is_redirected_though_its_own_orders_are_still_on_their_way() -> None:
    service = web(endpoint("a", 1, 5, leaving=True), endpoint("b", 2, 6))
    (redirect,) = host_state(inputs(service, tasks=(task("a", 5),)), Memory()).redirects
    assert redirect == Redirect("a", "10.1.64.5", Pool((Backend("10.1.65.6"),)))


def test_leaving_tasks_of_other_nodes_are_their_owners_business() -> None:
    assert host_state(inputs(web(endpoint("b", 2, 6, leaving=True))), Memory()).redirects == ()


def test_an_address_that_was_given_on_is_not_redirected() -> None:
    service = web(endpoint("a", 1, 5, leaving=True), endpoint("new", 1, 5))
    given = inputs(service, tasks=(task("a", 5, leaving=True), task("new", 5)))
    state = host_state(given, Memory())
    assert state.redirects == ()
    assert [t.task_id for t in state.tasks] == ["new"]


def test_a_redirect_without_anybody_left_holds_or_refuses() -> None:
    for hold in (True, False):
        (redirect,) = host_state(inputs(web(endpoint("a", 1, 5, leaving=True), hold=hold)), Memory()).redirects
        assert redirect.pool == Pool(hold=hold)


def test_what_did_not_change_is_the_same_object() -> None:
    memory = Memory()
    first, second = web(endpoint("a", 1, 5)), web(endpoint("b", 2, 6), service_id="other")
    before = host_state(inputs(first, second), memory).services
    again = host_state(inputs(first, second), memory).services
    assert again is before
    changed = web(endpoint("a", 1, 5), endpoint("c", 2, 7))
    after = host_state(inputs(changed, second), memory).services
    assert after["other"] is before["other"]
    assert after["web"] is not before["web"]
    died = host_state(inputs(changed, second, tasks=(task("a", 5),), dead=frozenset({"a"})), memory).services
    assert died["other"] is before["other"]
    assert died["web"].vips[0].pool.backends == (Backend("10.1.65.7"),)
    assert set(host_state(inputs(second), memory).services) == {"other"}
    # a message that says the same leads to the same object too
    assert host_state(inputs(web(endpoint("b", 2, 6), service_id="other")), memory).services["other"] is before["other"]


def test_services_of_unknown_networks_wait() -> None:
    service = host_state(inputs(web(endpoint("a", 1, 5)), networks={}), Memory()).services["web"]
    assert service.vips == ()
    assert service.published[0].pool.backends == ()


def test_host_ports_lead_to_the_healthy_task_of_this_host() -> None:
    port = spec.Port(published=9090, target=80, mode=spec.PUBLISH_MODE_HOST)
    old = task("a", 5, spec=spec.TaskSpec(host_ports=[port]))
    given = inputs(web(hold=True), tasks=(old,))
    assert host_state(given, Memory()).services["host:web"].published[0].pool.backends == (Backend("10.1.64.5"),)
    old.status.health = pb.HEALTH_UNHEALTHY
    assert host_state(given, Memory()).services["host:web"].published[0].pool == Pool(hold=True)
    old.status.state = pb.TASK_STATE_FAILED
    assert "host:web" not in host_state(given, Memory()).services


def test_the_overlay_of_a_node_with_a_block() -> None:
    made = overlay(inputs(), mtu=1450, checks=CHECKS)
    assert made.devices == {Device("psx4100", 4100, "10.9.0.1", "02:79:00:01:00:01", 1450)}
    assert Address("psx4100", "10.1.64.0") in made.addresses
    assert {
        Forward("psx4100", "02:79:00:01:00:02", "10.9.0.2"),
        Forward("psx4100", "02:79:00:01:00:03", "10.9.0.3"),
    } == made.forwards
    assert Neighbour("psx4100", "10.1.65.0", "02:79:00:01:00:02") in made.neighbours
    assert made.routes == {
        Route("10.1.0.0/16"),  # unreachable: nothing leaks
        Route("10.1.0.0/18", "psx4100", source="10.1.64.0"),
        Route("10.1.65.0/24", "psx4100", "10.1.65.0", "10.1.64.0"),
        Route("240.4.0.2/32", "psx4100", "240.4.0.2"),  # replies by way of node 2
        Route("240.4.0.3/32", "psx4100", "240.4.0.3"),
    }
    assert Neighbour("psx4100", "240.4.0.3", "02:79:00:01:00:03") in made.neighbours
    assert made.rules == frozenset()
    strict = overlay(inputs(), mtu=1450, checks=SourceChecks(mark_peers=True))
    assert {d.rp_filter for d in strict.devices} == {2}
    assert strict.routes - made.routes == {Route("0.0.0.0/0", "psx4100", table=TABLE_BASE | 4100)}
    assert sorted(r.priority for r in strict.rules) == [7900, 7901]


def test_the_overlay_of_a_node_without_a_block_sends_from_its_underlay_address() -> None:
    given = inputs(node_id="n3", node_number=3)
    made = overlay(given, mtu=1450, checks=CHECKS)
    assert {r.source for r in made.routes if r.source} == {"10.9.0.3"}
    assert {r.destination for r in made.routes if r.gateway and r.destination[:3] == "10."} == {
        "10.1.64.0/24",
        "10.1.65.0/24",
    }
    assert host_state(given, Memory()).segments[0].source == "10.9.0.3"


def test_a_node_that_nobody_knows_yet_waits() -> None:
    with pytest.raises(PreconditionFailed):
        derive.own_node(inputs(nodes=[node(2)]))
