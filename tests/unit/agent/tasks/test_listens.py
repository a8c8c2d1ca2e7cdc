"""Which ports a task without a probe is waited for."""

from __future__ import annotations

from tests.unit.agent.tasks.build import make_task

from pyswarm_agent.tasks.listens import LONGEST, MOST_PORTS, NOTHING, SURVIVES, Listens, listens_of
from pyswarm_core.v1 import spec_pb2 as spec


def test_published_ports_of_tcp_count_all_of_them_whatever_the_image_exposes() -> None:
    task = make_task()
    task.ports.add(target=8080, published=80)
    task.ports.add(target=53, published=53, protocol=spec.PROTOCOL_UDP)
    task.spec.host_ports.add(target=9000, published=9000, mode=spec.PUBLISH_MODE_HOST)
    assert listens_of(task, ["443/tcp"]) == Listens((8080, 9000), every=True)


def test_of_what_an_image_exposes_one_is_enough() -> None:
    task = make_task()
    task.ports.add(target=53, published=53, protocol=spec.PROTOCOL_UDP)
    found = listens_of(task, ["53/udp", "443/tcp", "80", "8000-8002/tcp", "nonsense", "0/tcp", "99999/tcp"])
    assert found == Listens((80, 443, 8000, 8001, 8002))
    assert found.missing({8001}) == () and found.missing(set()) == found.ports
    assert len(listens_of(task, ["1-65535/tcp"]).ports) == MOST_PORTS


def test_no_port_is_known() -> None:
    assert listens_of(make_task(), ["53/udp"]) == NOTHING
    assert NOTHING.until(10.0) == 10.0 + SURVIVES and Listens((80,)).until(10.0) == 10.0 + LONGEST
    assert NOTHING.missing(set()) == ()


def test_how_it_reads() -> None:
    assert Listens((80,)).awaited() == "port 80"
    every, some = Listens((80, 81, 443), every=True), Listens((80, 81, 443))
    assert every.missing({81}) == (80, 443) and every.lacking((80, 443)) == "ports 80 and 443"
    assert (every.awaited(), some.awaited()) == ("ports 80, 81 and 443", "one of the ports 80, 81 and 443")
    assert some.lacking(some.ports) == "any of the ports 80, 81 and 443"
