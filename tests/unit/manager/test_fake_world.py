from __future__ import annotations

import pytest
from tests.support import build
from tests.support.world import FakeWorld

from pyswarm_core.errors import Conflict
from pyswarm_manager.plan import Plan, Put, changed


def test_a_write_compares_the_version_that_it_was_made_from() -> None:
    world = FakeWorld()
    service = world.put(build.service(build.service_spec()))
    removing = changed(service)
    removing.removing = True
    world.apply(Plan(steps=((Put(removing),),)))
    assert world.services["svc"].removing
    assert world.services["svc"].version == service.version + 1
    with pytest.raises(Conflict):
        world.apply(Plan(steps=((Put(removing),),)))


def test_a_change_in_place_is_noticed() -> None:
    world = FakeWorld()
    world.put(build.service(build.service_spec())).removing = True
    with pytest.raises(AssertionError, match="in place"):
        world.check_untouched()
