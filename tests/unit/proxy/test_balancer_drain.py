from __future__ import annotations

import json
from dataclasses import replace

from pyswarm_proxy import drain, foreign
from pyswarm_proxy.balancer import leftovers
from pyswarm_proxy.conntrack import TCP, UDP, Flow
from pyswarm_proxy.counters import Traffic
from pyswarm_proxy.flows import Leftovers, doomed
from pyswarm_proxy.state import Backend, HostState, LocalTask, Pool, Redirect, Service, Vip

PROBES = "169.254.1.1"
SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE = range(1, 9)


def flow(
    state: int = 0, *, proto: int = TCP, client: str = "10.0.0.9", replied: bool = True, assured: bool = True
) -> Flow:
    return Flow(proto, client, "10.1.64.5", state, replied, assured, b"")


def test_what_a_client_may_still_use_is_open() -> None:
    for state in (SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK):
        assert drain.open_connections([flow(state)], PROBES) == 1
    for state in (0, SYN_SENT, TIME_WAIT, CLOSE):
        assert drain.open_connections([flow(state)], PROBES) == 0
    assert drain.open_connections([flow(ESTABLISHED, proto=UDP)], PROBES) == 0
    assert drain.open_connections([flow(ESTABLISHED, client=PROBES)], PROBES) == 0


def test_one_quiet_moment_is_not_enough() -> None:
    assert drain.is_drained(0, 0)
    assert not drain.is_drained(0, 1)
    assert not drain.is_drained(1, 0)


def test_what_is_forgotten_when_a_task_leaves_or_dies() -> None:
    unanswered, half, whole = (
        flow(SYN_SENT, replied=False, assured=False),
        flow(SYN_RECV, assured=False),
        flow(ESTABLISHED),
    )
    probe = flow(SYN_SENT, replied=False, assured=False, client=PROBES)
    assert drain.unanswered([unanswered, half, whole, probe], PROBES) == [unanswered]
    assert drain.half_open([unanswered, half, whole]) == [unanswered, half]
    assert drain.datagrams([whole, flow(proto=UDP)]) == [flow(proto=UDP)]


def _state(
    services: dict[str, Service], redirects: tuple[Redirect, ...] = (), tasks: tuple[LocalTask, ...] = ()
) -> HostState:
    return HostState(1, "10.9.0.1", PROBES, services=services, redirects=redirects, tasks=tasks)


def _web(*addresses: str, leaving: tuple[str, ...] = ()) -> Service:
    pool = Pool(tuple(Backend(a) for a in addresses))
    return Service("web", "web", (Vip("10.1.0.2", pool),), leaving=frozenset(leaving))


def test_a_backend_is_dead_only_when_it_is_neither_serving_nor_leaving() -> None:
    both, one = _state({"web": _web("a", "b")}), _state({"web": _web("a")})
    leaving = _state({"web": _web("a", leaving=("b",))})
    assert leftovers(None, both, (), ()) == Leftovers()
    assert leftovers(both, both, (), ()) == Leftovers()
    assert leftovers(both, leaving, (), ()) == Leftovers(moved={"b"})
    assert leftovers(both, one, (), ()) == Leftovers(gone={"b"})
    assert leftovers(leaving, one, (), ()) == Leftovers(moved={"b"})  # its open connections may still be ending
    assert leftovers(both, _state({}), (), ()) == Leftovers(gone={"a", "b"})
    redirected = _state({"web": _web("a")}, (Redirect("t", "b", Pool()),))
    assert leftovers(both, redirected, ("b",), ()) == Leftovers(leaving={"b"})
    assert leftovers(redirected, _state({"web": _web("a", "b")}), (), ("b",)) == Leftovers(gone={"b"})


def test_an_address_that_went_to_another_service_keeps_its_flows() -> None:
    before = _state({"web": _web("a", "b")})
    after = _state({"web": _web("a"), "api": _web("b")})
    assert leftovers(before, after, (), ()) == Leftovers()


def test_the_flows_of_a_task_of_this_host() -> None:
    here = LocalTask("t", "web", ("b",))
    before = _state({"web": _web("a", "b")}, tasks=(here,))
    died = _state({"web": _web("a")}, (Redirect("t", "b", Pool(), dead=True),), tasks=(here,))
    assert leftovers(before, died, ("b",), ()) == Leftovers(leaving={"b"}, died={"b"})
    assert leftovers(died, died, (), ()) == Leftovers()
    back = _state({"web": _web("a")}, tasks=(here,))
    assert leftovers(died, back, (), ("b",)) == Leftovers()  # it has its address still
    over = _state({"web": _web("a")})
    assert leftovers(died, over, (), ("b",)) == Leftovers(gone={"b"}, forgotten={"b"})


def test_which_flows_are_doomed() -> None:
    unanswered, half = flow(SYN_SENT, replied=False, assured=False), flow(SYN_RECV, assured=False)
    whole, datagram = flow(ESTABLISHED), flow(proto=UDP)
    other = replace(whole, server="10.1.64.6", handle=b"other")
    opened = replace(other, client="10.1.64.5", handle=b"opened")
    flows = [replace(f, handle=str(i).encode()) for i, f in enumerate((unanswered, half, whole, datagram))]
    every = [*flows, other, opened]
    task = {"10.1.64.5"}

    def fate(left: Leftovers) -> list[Flow]:
        return doomed(every, left, PROBES)

    assert fate(Leftovers()) == []
    assert fate(Leftovers(leaving=task)) == flows[:1]
    assert fate(Leftovers(died=task)) == [*flows[:2], flows[3]]
    assert fate(Leftovers(moved=task)) == [flows[0], flows[3]]
    assert fate(Leftovers(gone=task)) == flows
    assert fate(Leftovers(forgotten=task)) == [*flows, opened]


def test_traffic_adds_up() -> None:
    assert Traffic(1, 2, 3, 4) + Traffic(10, 20, 30, 40) == Traffic(11, 22, 33, 44)


def test_chains_of_others_that_drop_are_found() -> None:
    def chain(**kwargs: str) -> dict[str, dict[str, str]]:
        return {
            "chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
            | kwargs
        }

    listing = json.dumps(
        {
            "nftables": [
                {"metainfo": {}},
                chain(),
                chain(policy="accept"),
                chain(hook="input"),
                chain(family="ip6"),
                chain(table="pyswarm"),
                chain(family="inet", table="ufw", name="fwd"),
            ]
        }
    )
    assert foreign.drops_forwarding(listing) == ["ip filter FORWARD", "inet ufw fwd"]
    assert foreign.drops_forwarding("") == []
