"""Links that are being changed while somebody looks."""

from __future__ import annotations

import pytest

from pyswarm_agent.network.flux import Flux


def test_what_changed_at_any_moment_of_a_look() -> None:
    flux = Flux()
    with flux.changing("done before"):
        pass
    before = flux.now()
    assert flux.since(before) == frozenset()
    with flux.changing("whole"), flux.changing("still"):
        assert flux.since(before) == {"whole", "still"}
    assert flux.since(before) == {"whole", "still"}
    later = flux.now()
    assert flux.since(later) == frozenset()
    with pytest.raises(OSError), flux.changing("failed"):
        raise OSError
    assert flux.since(later) == {"failed"}


def test_two_who_change_one_link() -> None:
    flux = Flux()
    with flux.changing("a"):
        with flux.changing("a"):
            pass
        before = flux.now()
        assert flux.since(before) == {"a"}
    assert flux.since(flux.now()) == frozenset()
