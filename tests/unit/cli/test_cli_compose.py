"""Compose files: every key takes effect, or is refused by name and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.composing import Service, Write

from pyswarm_cli.compose import refusals
from pyswarm_cli.compose.loader import ComposeError, load
from pyswarm_cli.compose.project import Project
from pyswarm_core.v1 import spec_pb2 as spec


def test_the_least_there_is(service: Service) -> None:
    assert service() == spec.ServiceSpec(
        name="web", replicas=1, task=spec.TaskSpec(container=spec.ContainerSpec(image="web:v1"))
    )


EFFECTS: list[tuple[list[str], Callable[[spec.ServiceSpec], Any], Any]] = [
    (["command: sh -c 'a b'"], lambda s: list(s.task.container.args), ["sh", "-c", "a b"]),
    (["command: [a, b c]"], lambda s: list(s.task.container.args), ["a", "b c"]),
    (["entrypoint: /run.sh -x"], lambda s: list(s.task.container.entrypoint.values), ["/run.sh", "-x"]),
    (["entrypoint: []"], lambda s: (s.task.container.HasField("entrypoint"), list(s.task.container.entrypoint.values)),
     (True, [])),
    (["environment: [A=1, B=]"], lambda s: list(s.task.container.env), ["A=1", "B="]),
    (["environment:", "  A: 1", "  ON: on", "  V: 1.10", "  N: 0x10"], lambda s: list(s.task.container.env),
     ["A=1", "ON=on", "V=1.10", "N=0x10"]),
    (["labels: {a: 1, b: }"], lambda s: dict(s.task.container.labels), {"a": "1", "b": ""}),
    (["labels: [a=1, b]"], lambda s: dict(s.task.container.labels), {"a": "1", "b": ""}),
    (["hostname: h-{{.Task.Slot}}"], lambda s: s.task.container.hostname, "h-{{.Task.Slot}}"),
    (["user: 1000:1000"], lambda s: s.task.container.user, "1000:1000"),
    (["working_dir: /srv"], lambda s: s.task.container.workdir, "/srv"),
    (["group_add: [audio, 44]"], lambda s: list(s.task.container.groups), ["audio", "44"]),
    (["read_only: true"], lambda s: s.task.container.read_only, True),
    (["read_only: yes"], lambda s: s.task.container.read_only, True),
    (["init: true"], lambda s: s.task.container.init, True),
    (["tty: true"], lambda s: s.task.container.tty, True),
    (["cap_add: [NET_ADMIN]"], lambda s: list(s.task.container.cap_add), ["CAP_NET_ADMIN"]),
    (["cap_drop: [ALL]"], lambda s: list(s.task.container.cap_drop), ["ALL"]),
    (["stop_signal: SIGINT"], lambda s: s.task.container.stop_signal, "SIGINT"),
    (["stop_grace_period: 1m30s"], lambda s: s.task.container.stop_grace, 90),
    (["extra_hosts: ['db:10.0.0.1', 'dc=10.0.0.2']"],
     lambda s: [(h.hostname, h.address) for h in s.task.container.hosts], [("db", "10.0.0.1"), ("dc", "10.0.0.2")]),
    (["extra_hosts: {db: 10.0.0.1}"], lambda s: [(h.hostname, h.address) for h in s.task.container.hosts],
     [("db", "10.0.0.1")]),
    (["dns: 1.1.1.1"], lambda s: list(s.task.container.dns.servers), ["1.1.1.1"]),
    (["dns: [1.1.1.1, 9.9.9.9]"], lambda s: list(s.task.container.dns.servers), ["1.1.1.1", "9.9.9.9"]),
    (["dns_search: example.com"], lambda s: list(s.task.container.dns.search), ["example.com"]),
    (["dns_opt: ['ndots:2']"], lambda s: list(s.task.container.dns.options), ["ndots:2"]),
    (["sysctls: {net.core.somaxconn: 1024}"], lambda s: dict(s.task.container.sysctls), {"net.core.somaxconn": "1024"}),
    (["sysctls: [net.core.somaxconn=1024]"], lambda s: dict(s.task.container.sysctls), {"net.core.somaxconn": "1024"}),
    (["ulimits: {nofile: {soft: 1, hard: 2}, core: 0}"],
     lambda s: [(u.name, u.soft, u.hard) for u in s.task.container.ulimits], [("nofile", 1, 2), ("core", 0, 0)]),
    (["healthcheck: {test: [CMD, curl, localhost], interval: 5s, timeout: 1s, retries: 2, start_period: 1m}"],
     lambda s: s.task.container.probe,
     spec.Probe(command=spec.StringList(values=["curl", "localhost"]), interval=5, timeout=1, retries=2,
                start_period=60)),
    (["healthcheck: {test: exit 0}"], lambda s: list(s.task.container.probe.command.values),
     ["/bin/sh", "-c", "exit 0"]),
    (["healthcheck: {test: [CMD-SHELL, exit 0]}"], lambda s: list(s.task.container.probe.command.values),
     ["/bin/sh", "-c", "exit 0"]),
    (["healthcheck: {test: [NONE]}"], lambda s: s.task.container.probe, spec.Probe(disabled=True)),
    (["healthcheck: {disable: true}"], lambda s: s.task.container.probe, spec.Probe(disabled=True)),
    (["logging: {driver: json-file, options: {max-size: 1m, max-file: 5}}"], lambda s: s.task.log,
     spec.LogPolicy(max_size=1 << 20, max_file=5)),
    (["ports: ['8080:80', 53:53/udp, 22:22, 90]"], lambda s: [(p.published, p.target, p.protocol) for p in s.ports],
     [(8080, 80, 0), (53, 53, 1), (22, 22, 0), (0, 90, 0)]),
    (["ports:", "  - target: 80", "    published: '8080'", "    protocol: udp", "    mode: host"],
     lambda s: list(s.ports),
     [spec.Port(published=8080, target=80, protocol=spec.PROTOCOL_UDP, mode=spec.PUBLISH_MODE_HOST)]),
    (["expose: ['80', 53/udp]"], lambda s: len(s.ports), 0),
    (["volumes: ['data:/data:ro', '/srv:/srv', /anonymous]"],
     lambda s: [(m.type, m.source, m.target, m.read_only) for m in s.task.container.mounts],
     [(1, "data", "/data", True), (0, "/srv", "/srv", False), (1, "", "/anonymous", False)]),
    (["volumes:", "  - {type: bind, source: /a, target: /b, read_only: true, bind: {propagation: rslave}}"],
     lambda s: s.task.container.mounts[0], spec.Mount(source="/a", target="/b", read_only=True, propagation="rslave")),
    (["volumes:", "  - {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 0o1770}}"],
     lambda s: s.task.container.mounts[0],
     spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/t", tmpfs_size=64 << 20, tmpfs_mode=0o1770)),
    (["tmpfs: /run"], lambda s: s.task.container.mounts[0], spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/run")),
    (["tmpfs: ['/run:size=1m,mode=700']"], lambda s: s.task.container.mounts[0],
     spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/run", tmpfs_size=1 << 20, tmpfs_mode=0o700)),
    (["restart: on-failure:3"], lambda s: (s.task.restart.condition, s.task.restart.max_attempts),
     (spec.RESTART_CONDITION_ON_FAILURE, 3)),
    (["restart: 'no'"], lambda s: s.task.restart.condition, spec.RESTART_CONDITION_NONE),
    (["restart: no"], lambda s: s.task.restart.condition, spec.RESTART_CONDITION_NONE),
    (["restart: 'no'", "deploy: {restart_policy: {condition: any}}"], lambda s: s.task.restart.condition,
     spec.RESTART_CONDITION_ANY),
    (["scale: 4"], lambda s: s.replicas, 4),
    (["cpus: 0.5"], lambda s: s.task.resources.limit_nano_cpus, 500_000_000),
    (["mem_limit: 64m", "mem_reservation: 32m", "pids_limit: 10"],
     lambda s: (s.task.resources.limit_memory, s.task.resources.reserve_memory, s.task.resources.limit_pids),
     (64 << 20, 32 << 20, 10)),
    (["mem_limit: 64m", "deploy: {resources: {limits: {memory: 128m}}}"], lambda s: s.task.resources.limit_memory,
     128 << 20),
    (["deploy: {mode: global}"], lambda s: (s.mode, s.replicas), (spec.SERVICE_MODE_GLOBAL, 0)),
    (["deploy: {replicas: 3}"], lambda s: s.replicas, 3),
    (["deploy: {labels: {a: b}}"], lambda s: dict(s.labels), {"a": "b"}),
    (["deploy: {endpoint_mode: dnsrr}"], lambda s: s.endpoint_mode, spec.ENDPOINT_MODE_DNSRR),
    (["deploy: {update_config: {parallelism: 2, delay: 1s, failure_action: pause, monitor: 2s, order: stop-first,",
      "  max_failure_ratio: 0.1}}"], lambda s: s.update,
     spec.UpdatePolicy(parallelism=2, delay=1, failure_action=spec.FAILURE_ACTION_PAUSE, monitor=2,
                       max_failure_ratio=0.1, order=spec.UPDATE_ORDER_STOP_FIRST, deadline=600)),
    (["deploy: {rollback_config: {parallelism: 2}}"], lambda s: (s.rollback.parallelism, s.rollback.failure_action),
     (2, spec.FAILURE_ACTION_PAUSE)),
    (["deploy: {restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3, window: 1m}}"],
     lambda s: s.task.restart,
     spec.RestartPolicy(condition=spec.RESTART_CONDITION_ON_FAILURE, delay=2, max_attempts=3, window=60)),
    (["deploy: {resources: {limits: {cpus: '2', memory: 1g, pids: 5}, reservations: {cpus: 0.5, memory: 64M}}}"],
     lambda s: s.task.resources,
     spec.Resources(limit_nano_cpus=2_000_000_000, limit_memory=1 << 30, limit_pids=5, reserve_nano_cpus=500_000_000,
                    reserve_memory=64 << 20)),
    (["deploy: {placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.zone}],",
      "  max_replicas_per_node: 2}}"], lambda s: s.task.placement,
     spec.Placement(constraints=["node.role==worker"], preferences=["spread=node.labels.zone"], max_per_node=2)),
    (["x-pyswarm: {drain_timeout: 30s, affinity: true, update_deadline: 1m, rollback_deadline: 2m}"],
     lambda s: (s.task.drain_timeout, s.affinity, s.update.deadline, s.rollback.deadline, s.update.parallelism),
     (30, True, 60, 120, 1)),
    (["x-pyswarm: {exclusive: true}", "deploy: {update_config: {order: stop-first}}"],
     lambda s: (s.task.exclusive, s.update.order), (True, spec.UPDATE_ORDER_STOP_FIRST)),
    (["x-pyswarm: {health_http: 80/ok}", "healthcheck: {interval: 2s}"], lambda s: s.task.container.probe,
     spec.Probe(http=spec.HttpCheck(port=80, path="/ok"), interval=2)),
    (["healthcheck: {interval: 2s}", "x-pyswarm: {health_tcp: 80}"], lambda s: s.task.container.probe,
     spec.Probe(tcp=spec.TcpCheck(port=80), interval=2)),
    (["x-anything: {goes: here}", "ports:", "volumes: ~"], lambda s: len(s.ports), 0),
]  # fmt: skip


@pytest.mark.parametrize("case", EFFECTS, ids=lambda case: case[0][0][:50])
def test_keys_take_effect(service: Service, case: tuple[list[str], Callable[[spec.ServiceSpec], Any], Any]) -> None:
    lines, get, wanted = case
    assert get(service(*lines, top="volumes: {data: {}}")) == wanted


# A line below `image`, in which line the error is (the first of these is 4), and what it says.
WRONG: list[tuple[list[str], int, str]] = [
    (["replica: 3"], 4, "unknown key 'replica'"),
    (["comand: x"], 4, "did you mean 'command'"),
    (["deploy: {replica: 3}"], 4, "services.web.deploy has an unknown key 'replica'; did you mean 'replicas'"),
    (["deploy:", "  replicas: -1"], 5, "between 0 and 10000, not -1"),
    (["deploy:", "  replicas: many"], 5, "whole number"),
    (["deploy: {mode: global, replicas: 3}"], 4, "does not go with mode global"),
    (["deploy: {replicas: 3, mode: global}"], 4, "does not go with mode global"),
    (["deploy: {mode: everywhere}"], 4, "not one of replicated, global"),
    (["deploy: {update_config: {order: sideways}}"], 4, "not one of start-first, stop-first"),
    (["deploy: {rollback_config: {failure_action: rollback}}"], 4, "not one of pause, continue"),
    (["deploy: {placement: {constraints: [zone=a]}}"], 4, "services.web.deploy.placement.constraints"),
    (["deploy: {placement: {preferences: [{pack: x}]}}"], 4, "not a placement preference"),
    (["deploy: {resources: {reservations: {devices: []}}}"], 4, "devices is not supported"),
    (["deploy: {resources: {limits: {memory: lots}}}"], 4, "not a size"),
    (["deploy: []"], 4, "must be a mapping"),
    (["ports:", "  - '99999:80'"], 5, "between 1 and 65535"),
    (["ports:", "  - '127.0.0.1:80:80'"], 5, "every address of every host"),
    (["ports:", "  - target: 80", "    host_ip: 127.0.0.1"], 6, "host_ip is not supported"),
    (["ports:", "  - published: 80"], 5, "services.web.ports"),
    (["ports: 80"], 4, "must be a list"),
    (["ports:", "  - [80]"], 5, "must be a mapping"),
    (["environment:", "  A: [1]"], 5, "must be a single value"),
    (["environment: ['=x']"], 4, "not KEY=VALUE"),
    (["volumes: ['nowhere:/data']"], 4, "not declared under volumes"),
    (["volumes: ['/a:/b:zz']"], 4, "'zz' is not an option"),
    (["volumes: ['/a:/b:z']"], 4, "relabels"),
    (["volumes: ['/a:b']"], 4, "absolute path in the container"),
    (["volumes: ['a:b:c:d']"], 4, "is not SOURCE:TARGET"),
    (["volumes: [{type: bind, source: /a, target: /b, bind: {create_host_path: true}}]"], 4, "create_host_path"),
    (["networks: [nowhere]"], 4, "not declared under networks"),
    (["networks:", "  default:", "    ipv4_address: 10.0.0.1"], 6, "the network gives addresses"),
    (["healthcheck: {test: [RUN, x]}"], 4, "CMD-SHELL"),
    (["healthcheck: {interval: 10}"], 4, "did you mean 10s"),
    (["healthcheck: {interval: 2s}"], 2, "no command, HTTP path or TCP port"),
    (["healthcheck: {test: x}", "x-pyswarm: {health_tcp: 80}"], 5, "two probes"),
    (["logging: {driver: syslog}"], 4, "'syslog' is not supported"),
    (["logging: {options: {mode: x}}"], 4, "unknown key 'mode'"),
    (["ulimits: {files: 1}"], 4, "no ulimit 'files'"),
    (["ulimits: {nofile: {soft: 1, max: 2}}"], 4, "unknown key 'max'"),
    (["ulimits: {nofile: {soft: 1}}"], 4, "whole number"),
    (["sysctls: {x: 1}"], 4, "not a sysctl"),
    (["read_only: maybe"], 4, "must be true or false"),
    (["restart: sometimes"], 4, "must be no, always"),
    (["restart: always:3"], 4, "must be no, always"),
    (["restart: on-failure:x"], 4, "not a number"),
    (["stop_grace_period: 10"], 4, "did you mean 10s"),
    (["stop_signal: SIGFOO"], 4, "no signal"),
    (["cap_add: [FLY]"], 4, "no capability"),
    (["command: \"'\""], 4, "cannot be split"),
    (["dns: nowhere"], 4, "needs an IP address"),
    (["extra_hosts: [db]"], 4, "not a host entry"),
    (["extra_hosts: {db: x}"], 4, "needs an IP address"),
    (["x-pyswarm: {exclusive: true}", "deploy: {update_config: {order: start-first}}"], 5, "cannot be start-first"),
    (["x-pyswarm: {drain: 3s}"], 4, "unknown key 'drain'; did you mean 'drain_timeout'"),
    (["x-pyswarm: {drain_timeout: soon}"], 4, "not a duration"),
    (["env_file: nowhere.env"], 0, "cannot be read: no such file"),
    (["env_file: [{required: true}]"], 4, "without a path"),
    (["env_file: [{path: x, format: raw}]"], 4, "format is not supported"),
    (["hostname: ${X"], 4, "not closed"),
    (["hostname: ${X:?is needed}"], 4, "the variable X is needed: is needed"),
    (["hostname: a$(b)"], 4, "write $$"),
    (["image: x"], 4, "'image' is there twice, first in line 3"),
    (["mem_limit: 64m", "mem_reservation: 1g"], 2, "below the reservation"),
    (["ports: ['8080:80', '8080:81']"], 2, "published twice"),
    (["tmpfs: ['/run:uid=1']"], 4, "'uid=1' is not an option"),
    (["hostname: !secret x"], 4, "the tag '!secret' is not known"),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case[0])[:60])
def test_what_is_wrong_is_said_with_its_line(service: Service, case: tuple[list[str], int, str]) -> None:
    lines, line, words = case
    with pytest.raises(ComposeError) as raised:
        service(*lines)
    text = str(raised.value)
    assert words in text
    assert "\n" not in text
    if line:
        assert f"compose.yaml:{line}: " in text


@pytest.mark.parametrize("key", refusals.SERVICE)
def test_keys_that_cannot_be_carried_out_are_refused(service: Service, key: str) -> None:
    with pytest.raises(ComposeError) as raised:
        service(f"{key}: x")
    assert f"compose.yaml:4: services.web.{key} is not supported: {refusals.SERVICE[key]}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("services: {web: {image: a}", 2, "not valid YAML"),
        ("services:\n\tweb: x\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("- a\n", 1, "is a mapping"),
        ("just text\n", 1, "is a mapping"),
        ("", 1, "has no services"),
        ("~\n", 1, "has no services"),
        ("services:\n", 1, "has no services"),
        ("services: []\n", 1, "must be a mapping"),
        ("services: {web: {image: a}}\nservces: {}\n", 2, "unknown key 'servces'; did you mean 'services'"),
        ("services: {web: {image: a}}\nsecrets: {a: {file: b}}\n", 2, "secrets is not supported"),
        ("services: {web: {image: a}}\nconfigs:\n  a: {file: b}\n", 2, "configs is not supported"),
        ("services: {web: {image: a}}\ninclude: [b]\n", 2, "include is not supported"),
        ("services: {web: {image: a}}\n---\nservices: {}\n", 2, "not valid YAML"),
        ("services: {web: {image: a}}\nservices: {}\n", 2, "there twice"),
        ("services: {? [a] : b}\n", 1, "a key must be a plain text"),
        ("services: &a {web: *a}\n", 1, "contains itself"),
        ("services: {web: *nowhere}\n", 1, "not valid YAML"),
        ("services: {web: {image: \"\x01\"}}\n", 1, "not valid YAML"),
        ("services: " + "[" * 200 + "]" * 200, 1, "too deeply"),
        ("services: " + "[" * 200_000, 0, ""),
    ],
)  # fmt: skip
def test_files_that_are_no_compose_files(compose: Write, text: str, line: int, words: str) -> None:
    with pytest.raises(ComposeError) as raised:
        compose(text).service("web")
    assert words in str(raised.value)
    assert not line or f"compose.yaml:{line}: " in str(raised.value)


def test_a_service_that_is_empty_or_has_no_image(compose: Write) -> None:
    project = compose("services:\n  a:\n  b:\n    hostname: x\n  c.d:\n    image: x\n")
    for name, words in (
        ("a", ":2: services.a is empty"),
        ("b", ":3: services.b has no image"),
        ("c.d", ":5: 'c.d' cannot"),
    ):
        with pytest.raises(ComposeError, match=words.replace(".", r"\.")):
            project.service(name)


def test_other_services_do_not_matter(compose: Write) -> None:
    project = compose("services:\n  bad: {nonsense: 1, image: '${X:?}'}\n  web: {image: a}\n")
    assert project.names == ["bad", "web"]
    assert project.service("web").spec.task.container.image == "a"


def test_anchors_merges_and_extensions(compose: Write) -> None:
    project = compose(
        """
        x-common: &common
          restart: on-failure
          environment: {A: 1}
        x-more: &more
          hostname: more
          restart: always
        services:
          web:
            <<: [*common, *more]
            image: web
            hostname: own
          api:
            <<: *common
            image: api
        """
    )
    web = project.service("web").spec.task
    assert web.restart.condition == spec.RESTART_CONDITION_ON_FAILURE
    assert web.container.hostname == "own"
    assert list(web.container.env) == ["A=1"]
    assert list(project.service("api").spec.task.container.env) == ["A=1"]


def test_many_aliases_take_no_time(compose: Write) -> None:
    lines = ["x-0: &a0 [x, x]"] + [f"x-{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    project = compose("\n".join(lines) + "\nservices: {web: {image: a}}\n")
    assert project.service("web").spec.task.container.image == "a"


def test_networks_and_volumes_by_their_names(compose: Write) -> None:
    project = compose(
        """
        services:
          web:
            image: a
            networks:
              front: {aliases: [www]}
              back:
              default:
            volumes: ["data:/d", {type: volume, source: plain, target: /p}]
        networks:
          front: {name: prod_front, external: true}
          back: {ipam: {config: [{subnet: 10.20.0.0/24}]}, labels: {a: b}, driver: overlay}
          unused: {}
        volumes:
          data: {name: prod_data}
          plain:
        """
    )
    found = project.service("web")
    assert [(n.network_id, list(n.aliases)) for n in found.spec.task.networks] == [
        ("prod_front", ["www"]),
        ("back", []),
        ("default", []),
    ]
    assert [m.source for m in found.spec.task.container.mounts] == ["prod_data", "plain"]
    assert found.networks == (spec.NetworkSpec(name="back", subnet="10.20.0.0/24", labels={"a": "b"}),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("networks: {a: {driver: bridge}}", "must be overlay"),
        ("networks: {a: {internal: true}}", "internal is not supported"),
        ("networks: {a: {ipam: {config: [{subnet: x}]}}}", "not an IPv4 range"),
        ("networks: {a: {ipam: {config: [{subnet: 10.0.0.0/24}, {subnet: 10.0.1.0/24}]}}}", "more than one subnet"),
        ("volumes: {a: {driver: nfs}}", "must be local"),
        ("volumes: {a: {external: true}}", "external is not supported"),
        ("volumes: []", "must be a mapping"),
    ],
)
def test_networks_and_volumes_refused(compose: Write, text: str, words: str) -> None:
    with pytest.raises(ComposeError, match=words):
        compose(f"services: {{web: {{image: a}}}}\n{text}\n").service("web")


@given(st.text(alphabet="abc:{}[]-,&*!|>'\"#%@ \n\t~<0", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load(text, "f")
    except ComposeError as error:
        assert str(error).startswith("f")


def test_the_example() -> None:
    path = Path(__file__).parents[3] / "examples/web/compose.yaml"
    made = Project.load(path, {}).service("web").spec
    assert made.task.drain_timeout == 30
    assert [(p.published, p.target) for p in made.ports] == [(8080, 80)]
