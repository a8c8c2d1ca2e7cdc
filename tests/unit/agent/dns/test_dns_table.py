"""What names mean to whom."""

from __future__ import annotations

import pytest

from pyswarm_agent.dns.table import Scope, Table, Target
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

FRONT, BACK = "net-front", "net-back"


def network(network_id: str, subnet: str) -> pb.Network:
    found = pb.Network(id=network_id)
    found.spec.subnet = subnet
    return found


def task(task_id: str, **addresses: str) -> pb.Task:
    made = pb.Task(id=task_id)
    for name, address in addresses.items():
        made.addresses.add(network_id=f"net-{name}", address=address)
    return made


def service(
    name: str, *, vip: str = "", on: str = FRONT, alias: str = "", ports: tuple[int, ...] = ()
) -> ep.ServiceEndpoints:
    made = ep.ServiceEndpoints(service_id=f"id-{name}", name=name)
    made.mode = spec.ENDPOINT_MODE_VIP if vip else spec.ENDPOINT_MODE_DNSRR
    if vip:
        made.vips.add(network_id=on, address=vip)
    made.networks.add(network_id=on, aliases=[alias] if alias else [])
    for port in ports:
        made.ports.add(target=port, protocol=spec.PROTOCOL_UDP if port == 53 else spec.PROTOCOL_TCP)
    return made


def with_tasks(made: ep.ServiceEndpoints, *addresses: str, leaving: str = "") -> ep.ServiceEndpoints:
    for slot, address in enumerate(addresses, 1):
        endpoint = made.endpoints.add(task_id=f"{made.name}{slot}", slot=slot, task_name=f"{made.name}.{slot}")
        endpoint.addresses.add(network_id=made.networks[0].network_id, address=address)
    if leaving:
        endpoint = made.endpoints.add(task_id="old", slot=1, task_name=f"{made.name}.1")
        endpoint.state = ep.ENDPOINT_STATE_LEAVING
        endpoint.addresses.add(network_id=made.networks[0].network_id, address=leaving)
    return made


WEB = with_tasks(
    service("Web", vip="10.1.0.2", alias="www", ports=(80, 53)), "10.1.64.2", "10.1.64.3", leaving="10.1.64.9"
)
API = with_tasks(service("api"), "10.1.64.4")
DB = with_tasks(service("db", vip="10.2.0.2", on=BACK), "10.2.64.2")


def inputs(*services: ep.ServiceEndpoints, tasks: dict[str, pb.Task] | None = None) -> NetworkInputs:
    return NetworkInputs(
        node_id="n1",
        node_number=1,
        nodes=(),
        networks={FRONT: network(FRONT, "10.1.0.0/16"), BACK: network(BACK, "10.2.0.0/16")},
        endpoints={s.service_id: s for s in services},
        tasks=tasks if tasks is not None else {"a": task("a", front="10.1.64.7"), "b": task("b", back="10.2.64.7")},
    )


@pytest.fixture
def table() -> Table:
    made = Table()
    made.update(inputs(WEB, API, DB))
    return made


IN_FRONT = Scope((FRONT,))
IN_BOTH = Scope((BACK, FRONT))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", ["10.1.0.2"]),
        ("WEB.", ["10.1.0.2"]),
        ("www", ["10.1.0.2"]),
        ("tasks.web", ["10.1.64.2", "10.1.64.3"]),
        ("tasks.www", ["10.1.64.2", "10.1.64.3"]),
        ("web.1", ["10.1.64.2"]),
        ("web.2", ["10.1.64.3"]),
        ("web.3", None),
        ("api", ["10.1.64.4"]),
        ("tasks.api", ["10.1.64.4"]),
        ("db", None),
        ("tasks.db", None),
        ("db.1", None),
        ("nothing", None),
        ("", None),
        (".", None),
    ],
)
def test_names_of_the_askers_networks(table: Table, name: str, expected: list[str] | None) -> None:
    assert table.addresses(IN_FRONT, name) == expected


def test_scopes_are_those_of_the_asking_task(table: Table) -> None:
    assert table.scope("10.1.64.7") == IN_FRONT and table.scope("10.2.64.7") == Scope((BACK,))
    assert table.scope("10.9.9.9") is None
    host = table.scope("169.254.1.1", is_host=True)
    assert host is not None and table.addresses(host, "db") and table.addresses(host, "web")
    assert table.addresses(IN_BOTH, "db") == ["10.2.0.2"]


def test_the_first_network_that_knows_a_name_answers() -> None:
    table = Table()
    other = service("web", vip="10.2.0.9", on=BACK)
    other.service_id = "another"
    table.update(inputs(WEB, other))
    assert table.addresses(Scope((FRONT, BACK)), "web") == ["10.1.0.2"]
    assert table.addresses(Scope((BACK, FRONT)), "web") == ["10.2.0.9"]


def test_a_search_suffix_is_seen_through(table: Table) -> None:
    scope = Scope((FRONT,), search=("corp.example",))
    assert table.addresses(scope, "web.corp.example.") == ["10.1.0.2"]
    assert table.addresses(scope, "tasks.web.corp.example") == ["10.1.64.2", "10.1.64.3"]
    assert table.addresses(IN_FRONT, "web.corp.example") is None


def test_a_known_service_without_endpoints_has_no_address() -> None:
    table = Table()
    table.update(inputs(service("api")))
    assert table.addresses(IN_FRONT, "api") == [] and table.addresses(IN_FRONT, "tasks.api") == []


def test_srv(table: Table) -> None:
    both = [Target("Web.1", 53, "10.1.64.2"), Target("Web.1", 80, "10.1.64.2")]
    targets = table.targets(IN_FRONT, "tasks.web")
    assert targets is not None and [t for t in targets if t.name == "Web.1"] == both
    assert {t.port for t in table.targets(IN_FRONT, "_tcp.web") or []} == {80}
    assert {t.port for t in table.targets(IN_FRONT, "_53._udp.tasks.web") or []} == {53}
    assert table.targets(IN_FRONT, "_81._tcp.web") == []
    assert table.targets(IN_FRONT, "db") is None


def test_names_of_addresses(table: Table) -> None:
    assert table.name_of(IN_FRONT, "10.1.0.2") == "Web"
    assert table.name_of(IN_FRONT, "10.1.64.3") == "Web.2"
    assert table.name_of(IN_FRONT, "10.2.0.2") is None
    assert table.is_ours("10.2.0.2") and not table.is_ours("10.3.0.1")


def test_updates_replace_what_changed_and_nothing_else(table: Table) -> None:
    renamed = service("shop", vip="10.1.0.2")
    renamed.service_id = WEB.service_id
    table.update(inputs(renamed, DB))
    assert table.addresses(IN_FRONT, "web") is None and table.addresses(IN_FRONT, "www") is None
    assert table.addresses(IN_FRONT, "shop") == ["10.1.0.2"] and table.addresses(IN_FRONT, "api") is None
    assert table.name_of(IN_FRONT, "10.1.64.2") is None
    table.update(inputs())
    assert not table._by_name and not table._by_address


def test_a_tasks_own_dns_configuration() -> None:
    table = Table()
    own = task("a", front="10.1.64.7")
    own.spec.container.dns.servers.append("9.9.9.9")
    own.spec.container.dns.search.append("Corp.example.")
    table.update(inputs(WEB, tasks={"a": own}))
    assert table.scope("10.1.64.7") == Scope((FRONT,), ("corp.example",), ("9.9.9.9",))
