"""Applying changes one after the other leads where loading the last state from nothing leads."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nft_model import Model, Refused, whole_elements

from pyswarm_proxy import elements, ruleset
from pyswarm_proxy.diff import Table
from pyswarm_proxy.state import Backend, Pool, Proto, Published, Redirect, Segment, Service, SourceChecks, Vip


def new_table() -> Table:
    return Table("169.254.1.1", "10.9.0.1", SourceChecks())


ADDRESSES = [f"10.1.0.{i}" for i in range(1, 7)]
VIPS = [f"10.1.9.{i}" for i in range(1, 4)]

backends = st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=4).flatmap(
    lambda chosen: st.tuples(*(st.builds(Backend, st.just(a), st.integers(1, 3)) for a in chosen))
)
pools = st.builds(Pool, backends, st.booleans(), st.booleans())
services = st.builds(
    Service,
    st.sampled_from(["a", "b", "c"]),
    st.just(""),
    st.tuples(st.builds(Vip, st.sampled_from(VIPS), pools)),
    st.lists(
        st.builds(Published, st.sampled_from(Proto), st.sampled_from([80, 81]), st.sampled_from([1, 2]), pools),
        max_size=2,
        unique_by=lambda p: (p.proto, p.port),
    ).map(tuple),
)
redirects = st.builds(Redirect, st.sampled_from(["t1", "t2"]), st.sampled_from(ADDRESSES[:2]), pools, st.booleans())
changes = st.one_of(
    services.map(lambda s: (f"service {s.service_id}", elements.service_elements(s))),
    st.sampled_from(["a", "b", "c"]).map(lambda s: (f"service {s}", None)),
    redirects.map(lambda r: (f"redirect {r.task_id}", elements.redirect_elements(r))),
    st.sampled_from(["t1", "t2"]).map(lambda t: (f"redirect {t}", None)),
)


def _demanded(chains: Iterable[str]) -> set[str]:
    return set(chains) & {chain for demand in ruleset.ON_DEMAND for chain in demand.chains}


@given(st.lists(st.lists(changes, max_size=4), max_size=8))
def test_any_sequence_of_batches_ends_where_a_load_of_the_whole_does(batches: list[list[tuple[str, object]]]) -> None:
    table, model = new_table(), Model()
    last: dict[str, elements.Elements] = {}
    for batch in batches:
        for group, wanted in batch:
            table.replace(group, wanted)  # type: ignore[arg-type]
            last[group] = wanted  # type: ignore[assignment]
        model.take(table.batch())
        assert model.elements == table.elements()
        assert _demanded(model.chains) == {
            chain
            for demand in ruleset.ON_DEMAND
            for chain in demand.chains
            if any(name in demand.sets for name, _ in model.elements)
        }
    fresh = new_table()
    for group in sorted(last, reverse=True):
        fresh.replace(group, last[group])
    assert fresh.elements() == table.elements()
    for anew in (True, False):
        assert whole_elements(fresh.whole(anew=anew)) == model.elements
    assert table.batch() == ""


@given(st.lists(changes, max_size=6))
def test_a_whole_load_forgets_what_was_pending(batch: list[tuple[str, object]]) -> None:
    table = new_table()
    for group, wanted in batch:
        table.replace(group, wanted)  # type: ignore[arg-type]
    loaded = whole_elements(table.whole(anew=True))
    assert table.batch() == ""
    model = Model()
    model.elements, model.chains = loaded, {name: [] for name in elements.chains_in(loaded.values())}
    for demand in ruleset.ON_DEMAND:
        if any(name in demand.sets for name, _ in loaded):
            model.chains |= {chain: [] for chain in demand.chains}
    table.replace("service a", {("vips", "10.9.9.9"): "drop"})
    model.take(table.batch())
    assert model.elements == table.elements()


def test_of_two_services_with_one_port_the_first_by_name_has_it_and_hands_it_on() -> None:
    port = ("ports", "tcp . 80")
    table, model = new_table(), Model()
    for group in ("service b", "service a", "service c"):
        table.replace(group, {port: "goto p1", ("portbackends", "tcp . 80 . 0"): f"10.0.0.{ord(group[-1])} . 80"})
        model.take(table.batch())
    first = ("portbackends", "tcp . 80 . 0")
    assert model.elements[first].startswith(f"10.0.0.{ord('a')}")
    table.replace("service a", None)
    model.take(table.batch())
    assert model.elements[first].startswith(f"10.0.0.{ord('b')}")
    table.replace("service c", None)
    assert table.batch() == ""
    table.replace("service b", None)
    model.take(table.batch())
    assert model.elements == {}


def test_an_endpoint_that_changes_costs_a_few_elements_however_many_services_there_are() -> None:
    def service(number: int, last: int) -> elements.Elements:
        pool = Pool(tuple(Backend(f"10.1.{number % 200}.{i}") for i in (*range(9), last)))
        return elements.service_elements(Service(str(number), "", (Vip(f"10.2.{number >> 8}.{number & 255}", pool),)))

    sizes = []
    for count in (10, 1000):
        table = new_table()
        for number in range(count):
            table.replace(f"service {number}", service(number, 99))
        table.batch()
        table.replace("service 5", service(5, 100))
        sizes.append(len(table.batch()))
    assert sizes[0] == sizes[1] < 200


def test_the_chains_of_a_network_go_with_it() -> None:
    def host(*vnis: int) -> elements.Elements:
        from pyswarm_proxy.state import HostState

        segments = tuple(Segment(str(v), v, f"10.{v}.0.0/16", f"10.{v}.0.0/18", "10.9.0.1") for v in vnis)
        return elements.host_elements(HostState(1, "10.9.0.1", "169.254.1.1", segments=segments))

    table, model = new_table(), Model()
    for vnis in ((1, 2), (2,), (2, 3), ()):
        table.replace("host", host(*vnis))
        model.take(table.batch())
        wanted = {f"{what}_10_{v}_0_0_16" for v in vnis for what in ("same", "inside")}
        assert set(model.chains) == wanted


def test_the_model_refuses_what_the_kernel_refuses() -> None:
    model = Model()
    with pytest.raises(Refused):
        model.take("delete element ip pyswarm vips { 10.0.0.1 }")
    with pytest.raises(Refused):
        model.take("add element ip pyswarm vips { 10.0.0.1 : goto v7 }")
    model.take("add element ip pyswarm vips { 10.0.0.1 : drop }")
    with pytest.raises(Refused):
        model.take("add element ip pyswarm vips { 10.0.0.1 : accept }")
