"""Carrying out the steps turns what is found into what is wanted, and touches nothing else."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_agent.network.overlay import Address, Device, Forward, Neighbour, Overlay, Route, Rule, steps

names = st.sampled_from(["psx1", "psx2"])
links = st.sampled_from(["psx1", "psx2", "pscabc"])
ips = st.sampled_from(["10.0.0.1", "10.0.0.2"])
macs = st.sampled_from(["02:79:00:01:00:01", "02:79:00:01:00:02"])
devices = st.lists(
    st.builds(Device, names, st.integers(1, 2), ips, macs, st.sampled_from([1450, 1350]), st.sampled_from([0, 2])),
    unique_by=lambda d: d.name,
)
routes = st.lists(
    st.builds(Route, st.sampled_from(["10.1.0.0/16", "10.2.0.0/16"]), st.one_of(st.just(""), links), st.just(""), ips),
    unique_by=lambda r: r.key,
)

rules = st.builds(Rule, st.just(7900), st.just("10.1.0.0/16"), st.integers(1, 2), st.just(255), st.just(5))


@st.composite
def overlays(draw: st.DrawFn) -> Overlay:
    """Consistent: nothing is on a device that is not there."""
    there = draw(devices)
    on = {d.name for d in there} | {"pscabc", ""}
    return Overlay(
        devices=frozenset(there),
        addresses=frozenset(a for a in draw(st.lists(st.builds(Address, names, ips))) if a.device in on),
        neighbours=frozenset(n for n in draw(st.lists(st.builds(Neighbour, links, ips, macs))) if n.device in on),
        forwards=frozenset(f for f in draw(st.lists(st.builds(Forward, names, macs, ips))) if f.device in on),
        routes=frozenset(r for r in draw(routes) if r.device in on),
        rules=frozenset(draw(st.lists(rules))),
    )


class Kernel:
    def __init__(self, found: Overlay) -> None:
        self.things = {thing for f in fields(found) for thing in getattr(found, f.name)}

    def take(self, thing: object, add: bool) -> None:
        if isinstance(thing, Device):
            present = [t for t in self.things if isinstance(t, Device) and t.name == thing.name]
            if not add:
                assert present
                self.things = {t for t in self.things if getattr(t, "device", None) != thing.name}
            elif present:  # settings of a device that stays
                assert (present[0].vni, present[0].local, present[0].mac) == (thing.vni, thing.local, thing.mac)
            self.things -= set(present)
        if isinstance(thing, Route) and add:
            self.things -= {t for t in self.things if isinstance(t, Route) and t.key == thing.key}
        if add:
            device = getattr(thing, "device", "")
            there = {t.name for t in self.things if isinstance(t, Device)} | {"", "pscabc"}
            assert device in there
            self.things.add(thing)
        elif not isinstance(thing, Device):
            assert thing in self.things
            self.things.discard(thing)

    def overlay(self) -> Overlay:
        def of(kind: type) -> frozenset:  # type: ignore[type-arg]
            return frozenset(t for t in self.things if isinstance(t, kind))

        return Overlay(of(Device), of(Address), of(Neighbour), of(Forward), of(Route), of(Rule))


def _without_links(overlay: Overlay) -> list[frozenset[object]]:
    return [
        frozenset(t for t in getattr(overlay, f.name) if getattr(t, "device", "") != "pscabc") for f in fields(overlay)
    ]


@given(overlays(), overlays())
def test_the_steps_lead_from_what_is_found_to_what_is_wanted(found: Overlay, wanted: Overlay) -> None:
    kernel = Kernel(found)
    for step in steps(found, wanted):
        kernel.take(step.thing, step.add)
    after = kernel.overlay()
    assert _without_links(after) == _without_links(wanted)
    for f in fields(wanted):
        assert getattr(wanted, f.name) <= getattr(after, f.name)
    assert list(steps(wanted, wanted)) == []


@given(overlays(), overlays())
def test_without_removal_everything_wanted_is_added_and_no_other_device_goes(found: Overlay, wanted: Overlay) -> None:
    kernel = Kernel(found)
    for step in steps(found, wanted, remove=False):
        assert step.add or isinstance(step.thing, Device)
        kernel.take(step.thing, step.add)
    after = kernel.overlay()
    for f in fields(wanted):
        assert getattr(wanted, f.name) <= getattr(after, f.name)
    assert {d.name for d in found.devices} <= {d.name for d in after.devices}


@given(overlays())
def test_nothing_on_a_tasks_link_is_removed(found: Overlay) -> None:
    assert not [s for s in steps(found, Overlay()) if getattr(s.thing, "device", "") == "pscabc"]
