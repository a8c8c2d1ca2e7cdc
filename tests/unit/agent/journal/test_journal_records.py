"""What the agent writes down and reads again."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.tasks.build import make_task, tcp_probe

from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import LIFE, Records, decode_life, encode_life
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.listens import Listens
from pyswarm_agent.tasks.machine import begin, handle
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb


def open_records(path: Path) -> tuple[Journal, Records]:
    journal = Journal(path / "journal")
    journal.open()
    return journal, Records(journal)


def test_a_life_comes_back_as_it_was() -> None:
    life, _ = begin(make_task(), 1.0)
    pulled = ev.Pulled(tcp_probe(), "USR1", "i", Listens((80, 443), every=True))
    for event in (pulled, ev.Prepared(3), ev.Started(2.0)):
        assert decode_life(encode_life(life)) == life
        life, _ = handle(life, event, 2.0)
    life, _ = handle(life, ev.HealthChanged(pb.HEALTH_UNHEALTHY, "no"), 9.0)
    assert decode_life(encode_life(life)) == life and life.failure


def test_everything_survives_reopening(tmp_path: Path) -> None:
    journal, records = open_records(tmp_path)
    life, _ = begin(make_task(), 1.0)
    records.save(life)
    records.set_made_here("t1", 2)
    records.set_fence((7, 9))
    records.set_boot("3f0c")
    records.set_welcome(wire.Welcome(node_id="n1", node_number=3))
    records.set_networks({"a": pb.Network(id="a", vni=4), "b": pb.Network(id="b")}, [])
    node = wire.NodeAddress(node_id="n1", number=3)
    records.set_endpoints({"s": ep.ServiceEndpoints(service_id="s", name="web")}, [], [node], frozenset({"t0"}))
    journal.close()

    journal, records = open_records(tmp_path)
    assert records.lives() == {"t1": life} and records.made_here() == {"t1": 2}
    assert records.fence == (7, 9) and records.welcome is not None and records.welcome.node_number == 3
    assert records.boot == "3f0c"
    assert records.networks()["a"].vni == 4 and records.nodes() == [node] and records.settled() == {"t0"}
    assert records.endpoints()["s"].name == "web"
    records.drop("t1")
    records.set_networks({}, ["a"])
    records.set_endpoints({}, ["s"], None, frozenset())
    journal.close()

    journal, records = open_records(tmp_path)
    assert not records.lives() and not records.made_here() and set(records.networks()) == {"b"}
    assert not records.endpoints() and records.nodes() == [node] and not records.settled()
    journal.close()


def test_a_new_journal_is_empty_and_an_unreadable_record_is_left_out(tmp_path: Path) -> None:
    journal, records = open_records(tmp_path)
    assert records.fence == (0, 0) and records.welcome is None and not records.lives()
    journal.put(LIFE, "odd", b"\xff")
    assert not records.lives()
    journal.close()
