"""Tables and JSON, as the contract has them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cli import Run
from tests.support.fake_control import FakeControl, task

from pyswarm_cli.output import nodes, services, tasks
from pyswarm_cli.output.messages import to_dict
from pyswarm_cli.output.pretty import pretty
from pyswarm_cli.output.tables import table
from pyswarm_cli.output.times import ago, rfc3339
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

NOW = 1_800_000_000.0
SERVICE_ID = "0123456789abcdefghijklmno"


def web(replicas: int = 2) -> pb.Service:
    wanted = spec.ServiceSpec(
        name="web", replicas=replicas, ports=[spec.Port(published=8080, target=80)], labels={"tier": "front"}
    )
    wanted.task.container.image = "docker.io/library/web:v1"
    wanted.task.container.digest = "sha256:" + "a" * 64
    return pb.Service(
        id=SERVICE_ID,
        spec=wanted,
        spec_version=1,
        created_at=NOW - 100,
        vips=[pb.Vip(network_id="net-default", address="10.128.0.2")],
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"), (-5, "just now"), (1, "1 second ago"), (59, "59 seconds ago"), (60, "1 minute ago"),
        (185, "3 minutes ago"), (3600, "1 hour ago"), (47 * 3600, "47 hours ago"), (48 * 3600, "2 days ago"),
        (20 * 86400, "2 weeks ago"), (90 * 86400, "3 months ago"), (800 * 86400, "2 years ago"),
    ],
)  # fmt: skip
def test_ago(seconds: float, text: str) -> None:
    assert ago(NOW - seconds, NOW) == text


def test_rfc3339() -> None:
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert rfc3339(0) is None


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=5))
def test_a_table_has_a_line_for_each_row(rows: list[list[str]]) -> None:
    lines = table(("A", "B"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line == line.rstrip() for line in lines)


def test_messages_are_whole_and_have_the_protos_names() -> None:
    found = to_dict(
        pb.Task(
            id="x", desired_state=pb.TASK_STATE_RUNNING, created_at=1.5, status=pb.TaskStatus(health=pb.HEALTH_HEALTHY)
        )
    )
    assert found["desired_state"] == "running"
    assert found["status"]["health"] == "healthy"
    assert found["status"]["state"] == "new"
    assert found["status"]["exit_code"] is None
    assert found["created_at"] == "1970-01-01T00:00:01.500000Z"
    assert found["leaving_at"] is None
    assert set(found) == {field.name for field in pb.Task.DESCRIPTOR.fields}
    found = to_dict(spec.ServiceSpec(update=spec.UpdatePolicy(order=spec.UPDATE_ORDER_STOP_FIRST), labels={"a": "b"}))
    assert found["update"]["order"] == "stop_first"
    assert found["labels"] == {"a": "b"}
    assert found["rollback"] is None
    json.dumps(found)


def test_an_enum_value_of_a_later_version_is_its_number() -> None:
    node = pb.Node()
    node.MergeFromString(pb.Node(state=pb.NODE_STATE_READY).SerializeToString().replace(b"\x01", b"\x63"))
    assert nodes.status(node) == "99"


def test_service_row() -> None:
    view = control.ServiceView(service=web(), running=1, desired=2)
    assert services.row(view, False) == ["0123456789ab", "web", "replicated", "1/2", "web:v1", "*:8080->80/tcp"]
    assert services.row(view, True)[0] == SERVICE_ID
    assert services.row(view, True)[4] == "web:v1@sha256:" + "a" * 64


def test_task_rows_and_history() -> None:
    it = web()
    new = task(it, 1, task_id="b" * 25, created_at=NOW - 180)
    old = task(it, 1, pb.TASK_STATE_FAILED, task_id="a" * 25, created_at=NOW - 7200, error="exit code 3",
               desired=pb.TASK_STATE_SHUTDOWN)  # fmt: skip
    other = task(it, 2, pb.TASK_STATE_PENDING, task_id="c" * 25, message="no suitable node: …", created_at=NOW - 5)
    pulling = task(it, 3, pb.TASK_STATE_PREPARING, task_id="d" * 25, message="pulling 3/7 layers", created_at=NOW - 5)
    found = tasks.rows(tasks.ordered([other, old, pulling, new]), {"node-1-id": "host-1"}, NOW, False)
    assert found == [
        ["b" * 12, "web.1", "web:v1", "host-1", "Running", "Running 3 minutes ago", ""],
        ["a" * 12, " \\_ web.1", "web:v1", "host-1", "Shutdown", "Failed 2 hours ago", "exit code 3"],
        ["c" * 12, "web.2", "web:v1", "", "Running", "Pending 5 seconds ago", "no suitable node: …"],
        ["d" * 12, "web.3", "web:v1", "host-1", "Running", "Preparing 5 seconds ago (pulling 3/7 layers)", ""],
    ]


def test_task_json_has_the_contracts_fields() -> None:
    it = task(web(), 1, created_at=NOW)
    it.addresses.add(network_id="net-default", address="10.128.64.2")
    it.status.timings.started_at = NOW + 1
    it.restarts = 2
    found = tasks.to_object(it, {"node-1-id": "host-1"})
    wanted = {
        "id": it.id, "name": "web.1", "service": "web", "slot": 1, "image": "web:v1", "digest": "sha256:" + "a" * 64,
        "node": "host-1", "node_id": "node-1-id", "desired_state": "running", "state": "running", "health": "none",
        "error": "", "addresses": ["10.128.64.2"], "created_at": "2027-01-15T08:00:00.000000Z",
        "started_at": "2027-01-15T08:00:01.000000Z", "restarts": 2,
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted


def node(name: str = "host-1", **fields: object) -> pb.Node:
    made = pb.Node(
        id=f"{name}-id", address="10.90.0.11", state=pb.NODE_STATE_READY,
        description=pb.NodeDescription(hostname=name, version="0.1.0"), **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    made.spec.labels["zone"] = "a"
    return made


@pytest.mark.parametrize(
    ("manager", "status"),
    [
        (None, ""),
        (pb.ManagerStatus(leader=True, reachable=True, address="a:1"), "leader"),
        (pb.ManagerStatus(reachable=True, address="a:1"), "reachable"),
        (pb.ManagerStatus(address="a:1"), "unreachable"),
    ],
)
def test_manager_status(manager: pb.ManagerStatus | None, status: str) -> None:
    assert nodes.summary(node(manager=manager))["manager_status"] == status


def test_node_json_has_the_contracts_fields() -> None:
    found = nodes.summary(node())
    wanted = {
        "id": "host-1-id", "hostname": "host-1", "status": "ready", "availability": "active", "manager_status": "",
        "addresses": ["10.90.0.11"], "labels": {"zone": "a"}, "version": "0.1.0",
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted


def test_pretty_leaves_out_what_is_empty() -> None:
    text = pretty(
        {"id": "x", "none": None, "spec": {"a_b": 1, "empty": {}}, "list": [{"c": 2}, {}], "names": ["d", "e"]}
    )
    assert text.splitlines() == [
        "id: x", "spec:", "  a b: 1", "list:", "  - c: 2", "  - (empty)", "names: d, e",
    ]  # fmt: skip


# Against the fake manager


@pytest.fixture
def stocked(cluster: FakeControl) -> FakeControl:
    it = web()
    cluster.services[it.id] = it
    cluster.tasks = [task(it, 1, task_id="a" * 25), task(it, 2, pb.TASK_STATE_PENDING, task_id="b" * 25, message="why")]
    for name in ("host-2", "host-1"):
        cluster.nodes[f"{name}-id"] = node(name)
    return cluster


def test_service_ls(run: Run, stocked: FakeControl) -> None:
    assert run("service", "ls").stdout.splitlines() == [
        "ID             NAME   MODE         REPLICAS   IMAGE    PORTS",
        "0123456789ab   web    replicated   1/2        web:v1   *:8080->80/tcp",
    ]
    assert run("service", "list", "-q").stdout == "0123456789ab\n"
    assert run("service", "ls", "-q", "--no-trunc").stdout == f"{SERVICE_ID}\n"
    (found,) = json.loads(run("service", "ls", "--format", "json").stdout)
    assert found["id"] == SERVICE_ID and found["replicas"] == "1/2" and found["ports"][0]["published"] == 8080
    for key, value, count in (
        ("name", "we", 1), ("name", "x", 0), ("label", "tier", 1), ("label", "tier=back", 0), ("mode", "global", 0),
        ("id", "0123", 1),
    ):  # fmt: skip
        assert len(json.loads(run("service", "ls", "--format", "json", "-f", f"{key}={value}").stdout)) == count


def test_filters_of_one_key_are_alternatives(run: Run, stocked: FakeControl) -> None:
    both = ("-f", "name=x", "-f", "name=web")
    assert run("service", "ls", "-q", *both).stdout
    assert not run("service", "ls", "-q", *both, "-f", "mode=global").stdout


def test_nothing_to_list(run: Run, cluster: FakeControl) -> None:
    assert run("service", "ls").stdout == "ID   NAME   MODE   REPLICAS   IMAGE   PORTS\n"
    assert json.loads(run("service", "ls", "--format", "json").stdout) == []


def test_service_ps(run: Run, stocked: FakeControl) -> None:
    lines = run("service", "ps", "web").stdout.splitlines()
    assert lines[0].split("   ")[0] == "ID" and lines[0].endswith("ERROR")
    assert [line.split()[1] for line in lines[1:]] == ["web.1", "web.2"]
    assert lines[2].endswith("why")
    found = json.loads(run("service", "ps", "web", "--format", "json", "-f", "state=pending").stdout)
    assert [t["error"] for t in found] == ["why"]
    assert run("service", "ps", "-q", "-f", "node=host-1", "web").stdout == "a" * 12 + "\n"
    assert stocked.calls["ListTasks"][0].history


def test_service_inspect(run: Run, stocked: FakeControl) -> None:
    rollout = pb.Rollout(
        id="r1", service_id=SERVICE_ID, state=pb.ROLLOUT_STATE_ROLLED_BACK, reason="why", started_at=NOW
    )
    rollout.receipt.replaced = 3
    rollout.receipt.tasks.add(name="web.1", healthy_at=NOW)
    stocked.rollouts["r1"] = rollout
    stocked.services[SERVICE_ID].rollout_id = "r1"
    (found,) = json.loads(run("service", "inspect", "web").stdout)
    assert found["spec"]["replicas"] == 2
    assert found["endpoint"]["vips"] == [{"network_id": "net-default", "network": "default", "address": "10.128.0.2"}]
    assert found["endpoint"]["ports"][0]["target"] == 80
    assert found["rollout"]["state"] == "rolled_back"
    assert found["rollout"]["reason"] == "why"
    assert found["rollout"]["started_at"] == "2027-01-15T08:00:00.000000Z"
    assert found["rollout"]["finished_at"] is None
    assert found["rollout"]["receipt"]["replaced"] == 3
    assert found["rollout"]["receipt"]["tasks"][0]["healthy_at"] == "2027-01-15T08:00:00.000000Z"
    shown = run("service", "inspect", "--pretty", "web").stdout
    assert "reason: why" in shown and "{" not in shown
    assert run("service", "inspect", "--format", "table", "web").stdout == shown


def test_a_prefix_names_an_object(run: Run, stocked: FakeControl) -> None:
    assert json.loads(run("service", "inspect", "0123").stdout)[0]["name"] == "web"


def test_nodes(run: Run, stocked: FakeControl) -> None:
    lines = run("node", "ls").stdout.splitlines()
    assert lines[0].split() == ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER", "STATUS", "VERSION"]
    assert [line.split()[1] for line in lines[1:]] == ["host-1", "host-2"]
    assert run("node", "ls", "-q", "-f", "name=host-2").stdout == "host-2-id\n"
    (found,) = json.loads(run("node", "inspect", "host-1").stdout)
    assert found["hostname"] == "host-1" and found["description"]["version"] == "0.1.0"
    stocked.nodes["node-1-id"] = node("host-3")
    stocked.nodes["node-1-id"].id = "node-1-id"
    assert len(json.loads(run("node", "ps", "host-3", "--format", "json").stdout)) == 1


def test_networks(run: Run, stocked: FakeControl) -> None:
    made = run("network", "create", "front", "--subnet", "10.20.0.0/24", "--label", "a=b")
    assert made.stdout == "net-front\n"
    assert stocked.calls["CreateNetwork"][0].spec == spec.NetworkSpec(
        name="front", subnet="10.20.0.0/24", labels={"a": "b"}
    )
    assert [line.split()[1] for line in run("network", "ls").stdout.splitlines()] == ["NAME", "default", "front"]
    (found,) = json.loads(run("network", "inspect", "front").stdout)
    assert found["subnet"] == "10.20.0.0/24" and found["labels"] == {"a": "b"}
    assert run("network", "rm", "front").stdout == "front\n"


def test_info(run: Run, stocked: FakeControl) -> None:
    found = json.loads(run("system", "info", "--format", "json").stdout)
    assert found["context"] == "test" and found["nodes"] == 3
    assert "leader address:" in run("system", "info").stdout
