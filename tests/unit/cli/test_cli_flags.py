"""The table of flags: each one does what it says to a spec, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from pyswarm_cli.flags import apply as applying
from pyswarm_cli.flags import table
from pyswarm_cli.flags.lists import LISTS
from pyswarm_cli.flags.model import Flag
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec


def base(**fields: Any) -> spec.ServiceSpec:
    made = spec.ServiceSpec(name="web", replicas=3, **fields)
    made.task.container.image = "docker.io/library/web:v1"
    made.task.container.digest = "sha256:" + "a" * 64
    return made


def parsed(flags: tuple[Flag, ...], **texts: Any) -> dict[str, Any]:
    """As click would hand them over: env_add=["A=1"], replicas="3", init=True."""
    by_key = {flag.key: flag for flag in flags}
    options: dict[str, Any] = {}
    for key, value in texts.items():
        flag = by_key[key]
        if flag.parse is None or key == "env_file":
            options[key] = value
        elif flag.repeated:
            values = [flag.parse(text) for text in value]
            options[key] = [v for many in values for v in many] if flag.split else values
        else:
            options[key] = flag.parse(value)
    return options


def deploy(start: spec.ServiceSpec, **texts: Any) -> spec.ServiceSpec:
    return applying.apply(start, parsed(table.DEPLOY, **texts), table.DEPLOY)


def update(start: spec.ServiceSpec, **texts: Any) -> spec.ServiceSpec:
    return applying.apply(start, parsed(table.UPDATE, **texts), table.UPDATE)


# One row a flag: its text, the field it sets (from the service's spec on), and the value there.
SCALARS: dict[str, tuple[Any, str, Any]] = {
    "mode": ("global", "mode", spec.SERVICE_MODE_GLOBAL),
    "replicas": ("7", "replicas", 7),
    "replicas-max-per-node": ("2", "task.placement.max_per_node", 2),
    "endpoint-mode": ("dnsrr", "endpoint_mode", spec.ENDPOINT_MODE_DNSRR),
    "affinity": (True, "affinity", True),
    "exclusive": (True, "task.exclusive", True),
    "hostname": ("{{.Service.Name}}-{{.Task.Slot}}", "task.container.hostname", "{{.Service.Name}}-{{.Task.Slot}}"),
    "reserve-cpu": ("0.5", "task.resources.reserve_nano_cpus", 500_000_000),
    "reserve-memory": ("64M", "task.resources.reserve_memory", 64 << 20),
    "limit-cpu": ("2", "task.resources.limit_nano_cpus", 2_000_000_000),
    "limit-memory": ("1g", "task.resources.limit_memory", 1 << 30),
    "limit-pids": ("100", "task.resources.limit_pids", 100),
    "restart-condition": ("on-failure", "task.restart.condition", spec.RESTART_CONDITION_ON_FAILURE),
    "restart-delay": ("0s", "task.restart.delay", 0.0),
    "restart-max-attempts": ("4", "task.restart.max_attempts", 4),
    "restart-window": ("1m", "task.restart.window", 60.0),
    "drain-timeout": ("30s", "task.drain_timeout", 30.0),
    "stop-grace-period": ("0s", "task.container.stop_grace", 0.0),
    "stop-signal": ("INT", "task.container.stop_signal", "SIGINT"),
    "user": ("1000:1000", "task.container.user", "1000:1000"),
    "workdir": ("/srv", "task.container.workdir", "/srv"),
    "entrypoint": ("sh -c 'a b'", "task.container.entrypoint.values", ["sh", "-c", "a b"]),
    "read-only": (True, "task.container.read_only", True),
    "init": (True, "task.container.init", True),
    "tty": (True, "task.container.tty", True),
    "cap-add": (["net_admin"], "task.container.cap_add", ["CAP_NET_ADMIN"]),
    "cap-drop": (["ALL"], "task.container.cap_drop", ["ALL"]),
    "log-opt": (["max-size=1m", "max-file=2"], "task.log", spec.LogPolicy(max_size=1 << 20, max_file=2)),
    "no-healthcheck": (True, "task.container.probe", spec.Probe(disabled=True)),
    "health-cmd": ("true", "task.container.probe.command.values", ["/bin/sh", "-c", "true"]),
    "health-http": ("80/ok", "task.container.probe.http", spec.HttpCheck(port=80, path="/ok")),
    "health-tcp": ("80", "task.container.probe.tcp", spec.TcpCheck(port=80)),
    "update-parallelism": ("0", "update.parallelism", 0),
    "update-delay": ("5s", "update.delay", 5.0),
    "update-order": ("stop-first", "update.order", spec.UPDATE_ORDER_STOP_FIRST),
    "update-monitor": ("1s", "update.monitor", 1.0),
    "update-failure-action": ("continue", "update.failure_action", spec.FAILURE_ACTION_CONTINUE),
    "update-max-failure-ratio": ("0.25", "update.max_failure_ratio", 0.25),
    "update-deadline": ("2m", "update.deadline", 120.0),
    "rollback-parallelism": ("2", "rollback.parallelism", 2),
    "rollback-delay": ("5s", "rollback.delay", 5.0),
    "rollback-order": ("stop-first", "rollback.order", spec.UPDATE_ORDER_STOP_FIRST),
    "rollback-monitor": ("1s", "rollback.monitor", 1.0),
    "rollback-failure-action": ("continue", "rollback.failure_action", spec.FAILURE_ACTION_CONTINUE),
    "rollback-max-failure-ratio": ("1", "rollback.max_failure_ratio", 1.0),
    "rollback-deadline": ("2m", "rollback.deadline", 120.0),
}
# Where deploy has a list: a text, its field, the values there; a second text, and what -rm takes the first away by.
LISTED: dict[str, tuple[str, str, Any, str, str]] = {
    "env": ("A=1", "task.container.env", ["A=1"], "B=2", "A"),
    "label": ("a=1", "labels", {"a": "1"}, "b=2", "a"),
    "container-label": ("a=1", "task.container.labels", {"a": "1"}, "b=2", "a"),
    "constraint": ("node.labels.z==a", "task.placement.constraints", ["node.labels.z==a"], "node.role==worker",
                   "node.labels.z==a"),
    "placement-pref": ("spread=node.labels.z", "task.placement.preferences", ["spread=node.labels.z"],
                       "spread=node.labels.y", "spread=node.labels.z"),
    "network": ("front", "task.networks", [spec.NetworkAttachment(network_id="front")], "back", "front"),
    "publish": ("8080:80", "ports", [spec.Port(published=8080, target=80)], "53:53/udp", "80"),
    "mount": ("source=v,target=/v", "task.container.mounts",
              [spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="v", target="/v")], "type=tmpfs,target=/t", "/v"),
    "host": ("db:10.0.0.1", "task.container.hosts", [spec.HostEntry(hostname="db", address="10.0.0.1")],
             "dc:10.0.0.2", "db"),
    "dns": ("1.1.1.1", "task.container.dns.servers", ["1.1.1.1"], "9.9.9.9", "1.1.1.1"),
    "dns-search": ("example.com", "task.container.dns.search", ["example.com"], "example.org", "example.com"),
    "dns-option": ("ndots:2", "task.container.dns.options", ["ndots:2"], "rotate", "ndots:2"),
    "group": ("audio", "task.container.groups", ["audio"], "video", "audio"),
    "ulimit": ("nofile=10", "task.container.ulimits", [spec.Ulimit(name="nofile", soft=10, hard=10)], "core=0",
               "nofile"),
    "sysctl": ("net.core.somaxconn=9", "task.container.sysctls", {"net.core.somaxconn": "9"},
               "net.ipv4.ip_forward=1", "net.core.somaxconn"),
}  # fmt: skip
HEALTH_TIMES = {
    "health-interval": ("2s", "interval", 2.0),
    "health-timeout": ("3s", "timeout", 3.0),
    "health-retries": ("4", "retries", 4),
    "health-start-period": ("1m", "start_period", 60.0),
}


def at(service: spec.ServiceSpec, path: str) -> Any:
    found: Any = service
    for part in path.split("."):
        found = getattr(found, part)
    if isinstance(found, (str, int, float)) or hasattr(found, "DESCRIPTOR"):
        return found
    return dict(found) if hasattr(found, "items") else list(found)


def key(name: str) -> str:
    return name.replace("-", "_")


def test_every_flag_is_tested_here() -> None:
    in_table = {flag.name for flag in table.DEPLOY}
    assert in_table == {*SCALARS, *LISTED, *HEALTH_TIMES, "env-file"}
    assert {flag.name for flag in table.UPDATE} == {
        *SCALARS, *HEALTH_TIMES, "args", "force", *(f"{n}-{verb}" for n in LISTED for verb in ("add", "rm")),
    }  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_a_scalar_sets_its_field_alone(name: str) -> None:
    text, path, value = SCALARS[name]
    for command in (deploy, update):
        before = base()
        after = command(before, **{key(name): text})
        assert at(after, path) == value
        assert before == base()  # the base is never changed
        # everything but the message the field is in stays
        after.ClearField(path.split(".")[0])  # type: ignore[arg-type]
        before.ClearField(path.split(".")[0])  # type: ignore[arg-type]
        if name == "mode":
            after.replicas = before.replicas  # a global service has none
        assert after == before


@pytest.mark.parametrize("name", LISTED)
def test_a_list_is_replaced_by_deploy(name: str) -> None:
    first, path, value, second, _ = LISTED[name]
    once = deploy(base(), **{key(name): [first]})
    assert at(once, path) == value
    twice = deploy(once, **{key(name): [second]})
    assert len(at(twice, path)) == 1
    assert at(twice, path) != value


@pytest.mark.parametrize("name", LISTED)
def test_update_adds_and_removes(name: str) -> None:
    first, path, value, second, removal = LISTED[name]
    one = update(base(), **{f"{key(name)}_add": [first]})
    assert at(one, path) == value
    both = update(one, **{f"{key(name)}_add": [second]})
    assert len(at(both, path)) == 2
    again = update(both, **{f"{key(name)}_add": [first]})
    assert len(at(again, path)) == 2, "what is there already is not there twice"
    rest = update(both, **{f"{key(name)}_rm": [removal]})
    assert len(at(rest, path)) == 1
    assert at(rest, path) == at(update(base(), **{f"{key(name)}_add": [second]}), path)
    nothing = update(rest, **{f"{key(name)}_rm": [removal]})
    assert nothing == rest, "removing what is not there changes nothing"


@pytest.mark.parametrize("name", HEALTH_TIMES)
def test_times_of_a_probe(name: str) -> None:
    text, field, value = HEALTH_TIMES[name]
    after = deploy(base(), health_tcp="80", **{key(name): text})
    assert getattr(after.task.container.probe, field) == value
    with pytest.raises(InvalidInput, match="needs a probe"):
        deploy(base(), **{key(name): text})
    assert getattr(update(deploy(base(), health_tcp="80"), **{key(name): text}).task.container.probe, field) == value


def test_a_port_moves_in_one_update() -> None:
    before = update(base(), publish_add=["8080:80"])
    after = update(before, publish_rm=["80"], publish_add=["9090:80"])
    assert [(p.published, p.target) for p in after.ports] == [(9090, 80)]


def test_a_port_of_one_protocol_is_removed_alone() -> None:
    before = update(base(), publish_add=["53:53", "53:53/udp"])
    assert [p.protocol for p in update(before, publish_rm=["53/udp"]).ports] == [spec.PROTOCOL_TCP]
    assert len(update(before, publish_rm=["53"]).ports) == 0


def test_port_ranges_are_several_ports() -> None:
    assert len(deploy(base(), publish=["8000-8002:80-82", "53:53/udp"]).ports) == 4


def test_a_new_value_replaces_the_old_one_of_its_key() -> None:
    before = update(base(), env_add=["A=1", "B=2"], label_add=["x=1"])
    after = update(before, env_add=["A=3"], label_add=["x=2"])
    assert list(after.task.container.env) == ["A=3", "B=2"]
    assert dict(after.labels) == {"x": "2"}


def test_env_is_on_top_of_env_files() -> None:
    after = deploy(base(), env_file=[["A=file", "B=file"], ["B=second"]], env=["A=flag"])
    assert list(after.task.container.env) == ["A=flag", "B=second"]


def test_env_alone_replaces() -> None:
    before = deploy(base(), env=["A=1"])
    assert list(deploy(before, env=["B=2"]).task.container.env) == ["B=2"]


def test_a_variable_that_is_not_set_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("HERE", "x")
    assert list(deploy(base(), env=["NOWHERE", "HERE"]).task.container.env) == ["HERE=x"]


def test_a_capability_is_in_one_list_only() -> None:
    before = update(base(), cap_drop=["NET_RAW", "CHOWN"])
    after = update(before, cap_add=["NET_RAW"])
    assert list(after.task.container.cap_add) == ["CAP_NET_RAW"]
    assert list(after.task.container.cap_drop) == ["CAP_CHOWN"]


def test_one_policy_flag_sends_the_whole_policy() -> None:
    """An empty field would otherwise be taken for its zero: parallelism 0 is all at once."""
    policy = deploy(base(), update_order="stop-first").update
    assert (policy.parallelism, policy.monitor, policy.deadline) == (1, 5, 600)
    assert policy.failure_action == spec.FAILURE_ACTION_ROLLBACK
    assert not deploy(base(), update_order="stop-first").HasField("rollback")


def test_a_rollback_is_not_rolled_back() -> None:
    with pytest.raises(InvalidInput, match="pause, continue"):
        deploy(base(), rollback_failure_action="rollback")


def test_force_counts() -> None:
    assert update(update(base(), force=True), force=True).task.force == 2


def test_a_switch_can_be_taken_back() -> None:
    on = deploy(base(), read_only=True)
    assert not update(on, read_only=False).task.container.read_only


def test_the_images_own_probe_comes_back() -> None:
    off = update(base(), no_healthcheck=True)
    assert not update(off, no_healthcheck=False).task.container.HasField("probe")


def test_another_probe_replaces_the_check_and_keeps_the_times() -> None:
    before = deploy(base(), health_http="80/", health_interval="2s")
    after = update(before, health_tcp="81").task.container.probe
    assert after.WhichOneof("check") == "tcp" and after.interval == 2


def test_a_new_image_forgets_the_old_digest() -> None:
    before = base()
    before.task.container.platforms.add(os="linux", architecture="arm64")
    after = applying.with_image(before, "web:v2").task.container
    assert after.image == "web:v2" and after.digest == "" and not after.platforms


def test_clearing_values() -> None:
    before = deploy(base(), user="1", workdir="/a", hostname="h", entrypoint="x", limit_memory="64M")
    after = update(before, user="", workdir="", hostname="", entrypoint="", limit_memory="0")
    assert after.task.container.user == after.task.container.workdir == after.task.container.hostname == ""
    assert after.task.container.HasField("entrypoint") and not after.task.container.entrypoint.values
    assert after.task.resources.limit_memory == 0


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"mode": "global", "replicas": "3"}, "takes no --replicas"),
        ({"health_tcp": "80", "health_http": "80/"}, "exclude each other"),
        ({"no_healthcheck": True, "health_tcp": "80"}, "exclude each other"),
        ({"no_healthcheck": True, "health_interval": "1s"}, "exclude each other"),
        ({"limit_memory": "64M", "reserve_memory": "1g"}, "below the reservation"),
        ({"limit_cpu": "1", "reserve_cpu": "2"}, "below the reservation"),
        ({"publish": ["8080:80", "8080:81"]}, "published twice"),
        ({"publish": ["2377:80"]}, "managers' API"),
        ({"endpoint_mode": "dnsrr", "publish": ["8080:80"]}, "dnsrr"),
        ({"cap_add": ["ALL"], "cap_drop": []}, ""),
    ],
)
def test_contradictions(texts: dict[str, Any], words: str) -> None:
    if not words:
        deploy(base(), **texts)
        return
    with pytest.raises(InvalidInput, match=words):
        deploy(base(), **texts)
    with pytest.raises(InvalidInput, match=words):
        applying.check_flags(parsed(table.DEPLOY, **texts), table.DEPLOY)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a.b", "a b", "x" * 64, "ä", "../x", "_a"])
def test_names_that_no_service_can_have(name: str) -> None:
    with pytest.raises(InvalidInput):
        applying.check_name(name)


def test_every_list_has_a_way_to_be_replaced_told() -> None:
    assert set(table.INSTEAD) == {entry.name for entry in LISTS} | {"env-file"}


@pytest.mark.parametrize("which", ["update", "rollback"])
def test_an_exclusive_service_is_never_replaced_start_first(which: str) -> None:
    order = f"{which}_order"
    with pytest.raises(InvalidInput, match="start-first"):
        deploy(base(), exclusive=True, **{order: "start-first"})
    made = deploy(base(), exclusive=True, **{order: "stop-first"})
    with pytest.raises(InvalidInput, match="start-first"):
        update(made, **{order: "start-first"})


def test_a_global_service_is_not_exclusive() -> None:
    with pytest.raises(InvalidInput, match="replicated"):
        deploy(base(), exclusive=True, mode="global")
