from __future__ import annotations

from collections import Counter
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_proxy import elements
from pyswarm_proxy.elements import MAX_SLOTS, redirect_elements, service_elements, slots
from pyswarm_proxy.state import (
    MARK_MASK,
    MARK_PEER,
    MARK_SOURCE,
    RETURN_RANGE,
    Backend,
    Pool,
    Proto,
    Published,
    Redirect,
    Service,
    Vip,
    flow_mark,
    return_address,
    vtep_mac,
)

weights = st.lists(st.integers(0, 100), max_size=8)


@given(weights)
def test_slots_keep_the_proportions_of_the_weights(given_weights: list[int]) -> None:
    backends = [Backend(f"10.0.0.{i}", w) for i, w in enumerate(given_weights)]
    count = Counter(slots(backends))
    assert set(count) == {b.address for b in backends if b.weight}
    for one in backends:
        for other in backends:
            assert count[one.address] * other.weight == count[other.address] * one.weight
    assert sum(count.values()) <= MAX_SLOTS


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_even_wild_weights_stay_within_bounds(given_weights: list[int]) -> None:
    count = Counter(slots([Backend(f"10.0.0.{i}", w) for i, w in enumerate(given_weights)]))
    assert len(count) == len(given_weights)  # nobody starves
    assert sum(count.values()) <= MAX_SLOTS + len(given_weights)


def _service(pool: Pool) -> Service:
    return Service("s", "web", (Vip("10.1.0.2", pool),), (Published(Proto.TCP, 8080, 80, pool),))


def test_a_service_with_backends() -> None:
    made = service_elements(_service(Pool((Backend("10.1.64.5"), Backend("10.1.64.6", 2)))))
    assert made["vips", "10.1.0.2"] == "goto v3"
    assert made["ports", "tcp . 8080"] == "goto p3"
    assert [made["backends", f"10.1.0.2 . {i}"] for i in range(3)] == ["10.1.64.5", "10.1.64.6", "10.1.64.6"]
    assert made["portbackends", "tcp . 8080 . 0"] == "10.1.64.5 . 80"
    assert not any(name == "refused" for name, _ in made)
    assert service_elements(_service(Pool((Backend("10.1.64.5"),), affinity=True)))["vips", "10.1.0.2"] == "goto h1"


def test_without_backends_it_holds_or_refuses() -> None:
    held = service_elements(_service(Pool(hold=True)))
    assert held == {("vips", "10.1.0.2"): "drop", ("ports", "tcp . 8080"): "drop"}
    assert service_elements(_service(Pool())) == {("refused", "tcp . 8080"): ""}


def test_a_redirect_shuts_the_task_whatever_happens() -> None:
    live = Pool((Backend("10.1.64.9"),))
    for pool in (live, Pool(hold=True), Pool()):
        for dead in (False, True):
            made = redirect_elements(Redirect("t", "10.1.64.5", pool, dead))
            assert ("shut", "10.1.64.5") in made
            assert ("late", "10.1.64.5") in made
            assert (("tombs", "10.1.64.5") in made) == dead
            assert (("closed", "10.1.64.5") in made) == (pool == Pool())
    assert redirect_elements(Redirect("t", "10.1.64.5", live))["leaving", "10.1.64.5"] == "goto r1"
    assert redirect_elements(Redirect("t", "10.1.64.5", Pool(hold=True)))["leaving", "10.1.64.5"] == "drop"


def test_macs_are_unicast_local_and_distinct() -> None:
    macs = {vtep_mac(number) for number in (1, 2, 255, 256, 65535)}
    assert len(macs) == 5
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs)


def test_every_chain_that_elements_lead_to_can_be_written() -> None:
    from pyswarm_proxy import ruleset

    for kind in "vhrpq":
        text = ruleset.chain(f"{kind}3")
        assert text.startswith(f"add chain ip pyswarm {kind}3; add rule")
        assert ("jhash" in text) == (kind in "hq")
        assert ("ttl < 6 drop" in text) == (kind == "r")
    assert elements.chains_in(["goto v3", "drop", "", "jump same_10_1_0_0_16"]) == {"v3", "same_10_1_0_0_16"}


def test_every_place_of_a_flow_has_a_mark_and_an_address_of_its_own() -> None:
    places = [(vni, number) for vni in (4096, 4097, 4096 + 1023) for number in (1, 255, 256, 65535)]
    assert len({flow_mark(*place) for place in places}) == len({return_address(*place) for place in places}) == 12
    for place in places:
        assert flow_mark(*place) & MARK_MASK == MARK_PEER != MARK_SOURCE
        assert ip_address(return_address(*place)) in ip_network(RETURN_RANGE)
