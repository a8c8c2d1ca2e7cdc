import pytest
from pyswarm_core.errors import Conflict
from pyswarm_manager.plan import Plan, Put, changed
from tests.support import build
from tests.support.world import FakeWorld
def test():
    w = FakeWorld()
    s = w.put(build.service(build.service_spec()))
    c = changed(s); c.removing = True
    w.apply(Plan(steps=((Put(c),),)))
    assert w.services["svc"].removing and w.services["svc"].version == 3
    with pytest.raises(Conflict): w.apply(Plan(steps=((Put(c),),)))
