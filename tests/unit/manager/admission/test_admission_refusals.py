"""Every way to ask for something impossible gets one sentence."""

from __future__ import annotations

import string
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.world import FakeWorld

from pyswarm_core.errors import InvalidInput, NotFound, PyswarmError
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import default_network
from pyswarm_manager.api import admission

NOW = 1000.0
MIB = 1 << 20


def cluster() -> FakeWorld:
    world = FakeWorld()
    world.put(default_network(world, "net0", 1.0))
    return world


def wanted_with(**changes: Any) -> spec.ServiceSpec:
    """A good spec with one field set: container__user="a b", ports=[…]."""
    wanted = spec.ServiceSpec(name="web", replicas=1, task=spec.TaskSpec(container=spec.ContainerSpec(image="web")))
    for path, value in changes.items():
        message: Any = wanted
        *parents, last = path.split("__")
        for part in parents:
            message = getattr(message, part)
        if isinstance(value, list):
            del getattr(message, last)[:]
            getattr(message, last).extend(value)
        elif isinstance(value, dict):
            getattr(message, last).update(value)
        elif isinstance(value, Message):
            getattr(message, last).CopyFrom(value)
        else:
            setattr(message, last, value)
    return wanted


BIND, VOLUME, TMPFS = spec.MOUNT_TYPE_BIND, spec.MOUNT_TYPE_VOLUME, spec.MOUNT_TYPE_TMPFS

BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "The service has no name"),
    ({"name": "a" * 64}, "64 characters"),
    ({"name": "-web"}, "cannot be the name"),
    ({"name": "we.b"}, "cannot be the name"),
    ({"name": "wéb"}, "cannot be the name"),
    ({"labels": {"": "x"}}, "cannot be the key of a label"),
    ({"mode": 7}, "replicated or global"),
    ({"endpoint_mode": 7}, "vip or dnsrr"),
    ({"replicas": 10_001}, "at most 10000"),
    ({"mode": spec.SERVICE_MODE_GLOBAL}, "no number of replicas"),
    ({"mode": spec.SERVICE_MODE_GLOBAL, "replicas": 0, "task__placement__max_per_node": 1}, "once on each node"),
    ({"ports": [spec.Port(target=0, published=80)]}, "target port 0"),
    ({"ports": [spec.Port(target=70000, published=80)]}, "target port 70000"),
    ({"ports": [spec.Port(target=80, published=70000)]}, "published port 70000"),
    ({"ports": [spec.Port(target=80, published=2377)]}, "managers' API"),
    ({"ports": [spec.Port(target=80, published=4789, protocol=spec.PROTOCOL_UDP)]}, "VXLAN"),
    ({"ports": [spec.Port(target=80, protocol=9)]}, "tcp or udp"),  # type: ignore[arg-type]
    ({"ports": [spec.Port(target=80, mode=9)]}, "ingress or host"),  # type: ignore[arg-type]
    ({"ports": [spec.Port(target=80, published=81), spec.Port(target=82, published=81)]}, "81/tcp is published twice"),
    ({"ports": [spec.Port(target=80), spec.Port(target=80)]}, "target port 80/tcp is published twice"),
    ({"ports": [spec.Port(target=80)], "endpoint_mode": spec.ENDPOINT_MODE_DNSRR}, "has no load balancer"),
    ({"update": spec.UpdatePolicy(max_failure_ratio=1.5)}, "update max failure ratio"),
    ({"update": spec.UpdatePolicy(max_failure_ratio=float("nan"))}, "update max failure ratio"),
    ({"update": spec.UpdatePolicy(delay=-1)}, "update delay must be 0 or more"),
    ({"update": spec.UpdatePolicy(monitor=-1)}, "update monitor time"),
    ({"update": spec.UpdatePolicy(deadline=float("inf"))}, "update deadline"),
    ({"update": spec.UpdatePolicy(deadline=1e9)}, "at most a year"),
    ({"update": spec.UpdatePolicy(parallelism=10_001)}, "update parallelism"),
    ({"update": spec.UpdatePolicy(order=5)}, "update order"),  # type: ignore[arg-type]
    ({"rollback": spec.UpdatePolicy(failure_action=5)}, "rollback failure action"),  # type: ignore[arg-type]
    ({"task__drain_timeout": -1.0}, "drain timeout"),
    ({"task__restart__delay": -1.0}, "restart delay"),
    ({"task__restart__window": -1.0}, "restart window"),
    ({"task__restart__condition": 9}, "restart condition"),
    ({"task__resources__limit_memory": 6 * MIB - 1}, "at least 6 MiB"),
    ({"task__resources__limit_memory": 8 * MIB, "task__resources__reserve_memory": 9 * MIB}, "below the reservation"),
    ({"task__resources__limit_memory": -5}, "memory limit must be 0 or more"),
    ({"task__resources__reserve_nano_cpus": -5}, "CPU reservation must be 0 or more"),
    ({"task__resources__limit_nano_cpus": 1}, "at least 0.01"),
    (
        {"task__resources__limit_nano_cpus": 10**9, "task__resources__reserve_nano_cpus": 2 * 10**9},
        r"CPU limit \(1\) is below the reservation \(2\)",
    ),
    ({"task__resources__limit_pids": -1}, "limit of processes"),
    ({"task__placement__constraints": ["zone"]}, "neither =="),
    ({"task__placement__preferences": ["zone"]}, "spread=node.labels.zone"),
    ({"task__placement__max_per_node": 10_001}, "Max replicas per node"),
    ({"task__networks": [spec.NetworkAttachment(network_id="net0", aliases=["a b"])]}, "alias 'a b'"),
    (
        {"task__networks": [spec.NetworkAttachment(network_id="net0"), spec.NetworkAttachment(network_id="default")]},
        "named twice",
    ),
    ({"task__log__max_size": 100}, "too small"),
    ({"task__log__max_file": 5000}, "too many"),
    ({"task__container__image": ""}, "No image"),
    ({"task__container__image": "A/B C"}, "blanks"),
    ({"task__container__digest": "latest"}, "digest 'latest'"),
    ({"task__container__env": ["A"]}, "A=VALUE"),
    ({"task__container__env": ["=x"]}, "no valid name"),
    ({"task__container__env": ["A B=x"]}, "no valid name"),
    ({"task__container__env": ["A=\0"]}, "NUL"),
    ({"task__container__env": ["A={{.Task.Sloth}}"]}, "environment variable A is unknown"),
    ({"task__container__hostname": "a_b"}, "not a host name"),
    ({"task__container__hostname": "web-{{.Task.Foo}}"}, "the hostname is unknown"),
    ({"task__container__hostname": "-{{.Task.Slot}}"}, "not a host name"),
    ({"task__container__user": "a b"}, "User 'a b'"),
    ({"task__container__groups": ["a:b"]}, "Group 'a:b'"),
    ({"task__container__workdir": "app"}, "absolute path"),
    ({"task__container__args": ["a\0"]}, "command has a NUL"),
    ({"task__container__stop_grace": -1.0}, "stop grace period"),
    ({"task__container__stop_signal": "SIGFOO"}, "no signal 'SIGFOO'"),
    ({"task__container__stop_signal": "65"}, "no signal '65'"),
    ({"task__container__cap_add": ["FLY"]}, "no capability 'FLY'"),
    ({"task__container__cap_add": ["CHOWN"], "task__container__cap_drop": ["CAP_CHOWN"]}, "both added and dropped"),
    ({"task__container__ulimits": [spec.Ulimit(name="files", soft=1, hard=1)]}, "no ulimit 'files'"),
    ({"task__container__ulimits": [spec.Ulimit(name="nofile", soft=2, hard=1)]}, "soft ulimit nofile"),
    ({"task__container__ulimits": [spec.Ulimit(name="nofile", soft=-1, hard=1)]}, "soft ulimit nofile"),
    ({"task__container__ulimits": [spec.Ulimit(name="nofile", soft=-2, hard=1)]}, "-1 for unlimited"),
    ({"task__container__ulimits": [spec.Ulimit(name="core"), spec.Ulimit(name="core")]}, "given twice"),
    ({"task__container__sysctls": {"vm.swappiness": "1"}}, "belongs to the host"),
    ({"task__container__sysctls": {"somaxconn": "1"}}, "not the name of a sysctl"),
    ({"task__container__labels": {"a=b": "1"}}, "container label"),
    ({"task__container__hosts": [spec.HostEntry(hostname="db", address="x")]}, "not an IP address"),
    ({"task__container__hosts": [spec.HostEntry(hostname="d b", address="1.2.3.4")]}, "not a host name"),
    ({"task__container__dns": spec.DnsConfig(servers=["x"])}, "DNS server 'x'"),
    ({"task__container__dns": spec.DnsConfig(search=["a b"])}, "DNS search domain"),
    ({"task__container__dns": spec.DnsConfig(options=[""])}, "DNS option"),
    ({"task__container__probe": spec.Probe()}, "no command, HTTP path or TCP port"),
    ({"task__container__probe": spec.Probe(disabled=True, tcp=spec.TcpCheck(port=1))}, "choose one"),
    ({"task__container__probe": spec.Probe(command=spec.StringList())}, "command is empty"),
    ({"task__container__probe": spec.Probe(http=spec.HttpCheck(port=0))}, "port 0"),
    ({"task__container__probe": spec.Probe(http=spec.HttpCheck(port=80, path="a b"))}, "path '/a b'"),
    ({"task__container__probe": spec.Probe(tcp=spec.TcpCheck(port=70000))}, "port 70000"),
    ({"task__container__probe": spec.Probe(tcp=spec.TcpCheck(port=1), interval=-1)}, "interval must be 0 or more"),
    ({"task__container__probe": spec.Probe(tcp=spec.TcpCheck(port=1), timeout=1e-9)}, "timeout must be at least 1 ms"),
    ({"task__container__probe": spec.Probe(tcp=spec.TcpCheck(port=1), retries=5000)}, "retries"),
    ({"task__container__probe": spec.Probe(tcp=spec.TcpCheck(port=1), start_period=-2)}, "start period"),
    ({"task__container__mounts": [spec.Mount(type=BIND, source="/a")]}, "no target"),
    ({"task__container__mounts": [spec.Mount(type=BIND, source="/a", target="b")]}, "absolute path in the container"),
    ({"task__container__mounts": [spec.Mount(type=BIND, source="/a", target="//")]}, "would hide the image"),
    ({"task__container__mounts": [spec.Mount(type=BIND, source="a", target="/b")]}, "absolute path on the host"),
    ({"task__container__mounts": [spec.Mount(type=VOLUME, source="a/b", target="/b")]}, "cannot be a volume's name"),
    ({"task__container__mounts": [spec.Mount(type=TMPFS, source="a", target="/b")]}, "can have no source"),
    ({"task__container__mounts": [spec.Mount(type=9, target="/b")]}, "unknown type"),  # type: ignore[arg-type]
    ({"task__container__mounts": [spec.Mount(type=VOLUME, target="/b", tmpfs_size=1)]}, "no tmpfs size"),
    ({"task__container__mounts": [spec.Mount(type=TMPFS, target="/b", tmpfs_mode=0o10000)]}, "octal"),
    ({"task__container__mounts": [spec.Mount(type=TMPFS, target="/b", propagation="shared")]}, "no propagation"),
    ({"task__container__mounts": [spec.Mount(source="/a", target="/b", propagation="x")]}, "must be one of rprivate"),
    (
        {"task__container__mounts": [spec.Mount(type=TMPFS, target="/a/b"), spec.Mount(type=TMPFS, target="/a//b/")]},
        "Two mounts have the target /a/b",
    ),
    ({"task__container__mounts": [spec.Mount(source="/d/{{.X}}", target="/b")]}, "the mount at /b is unknown"),
    ({"task__container__env": [f"A={'x' * 600_000}"]}, "500000 are possible"),
]


@pytest.mark.parametrize(("changes", "says"), BAD, ids=range(len(BAD)))
def test_one_clear_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        admission.create_service(cluster(), wanted_with(**changes), "id", "r", NOW)
    text = str(raised.value)
    assert text.endswith((".", "?"))
    assert "\n" not in text
    assert len(text) < 400


def test_unknown_network() -> None:
    wanted = wanted_with(task__networks=[spec.NetworkAttachment(network_id="defautl")])
    with pytest.raises(NotFound, match=r"no network 'defautl'. Did you mean default\?"):
        admission.create_service(cluster(), wanted, "id", "r", NOW)


GOOD: list[dict[str, Any]] = [
    {"task__container__hostname": "{{.Service.Name}}-{{.Task.Slot}}"},
    {"task__container__env": ["A=", "B=x=y", 'C={{index .Service.Labels "com.example/x"}}', "D={{ .Node.Hostname }}"]},
    {"task__container__mounts": [spec.Mount(source="/data/{{.Task.Slot}}", target="/data")]},
    {"task__container__mounts": [spec.Mount(type=VOLUME, source="v-{{.Task.Slot}}", target="/a//b/")]},
    {"task__container__ulimits": [spec.Ulimit(name="nofile", soft=1024, hard=-1)]},
    {"task__container__sysctls": {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "1"}},
    {"task__container__stop_signal": "RTMIN+3"},
    {"task__container__user": "1000:1000"},
    {"task__container__probe": spec.Probe(disabled=True)},
    {"ports": [spec.Port(target=80, published=80), spec.Port(target=80, published=8080)]},
    {"replicas": 0},
    {"replicas": 10_000},
]


@pytest.mark.parametrize("changes", GOOD, ids=range(len(GOOD)))
def test_what_is_possible_passes_and_completing_it_again_changes_nothing(changes: dict[str, Any]) -> None:
    world = cluster()
    service = admission.create_service(world, wanted_with(**changes), "id", "r", NOW).service
    again = admission.update_service(world, service, service.spec, "r2", NOW).service
    assert again.spec == service.spec
    assert again.spec_version == 1


texts = st.text(alphabet=string.ascii_letters + string.digits + " -_./:={}@\0é", max_size=12)
uints = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
doubles = st.one_of(st.floats(0, 100), st.floats())
policies = st.builds(
    spec.UpdatePolicy,
    parallelism=uints,
    delay=doubles,
    order=st.integers(0, 2),
    monitor=doubles,
    failure_action=st.integers(0, 3),
    max_failure_ratio=doubles,
    deadline=doubles,
)
probes = st.one_of(
    st.builds(spec.Probe, disabled=st.booleans(), interval=doubles, timeout=doubles),
    st.builds(spec.Probe, http=st.builds(spec.HttpCheck, port=uints, path=texts), retries=uints),
    st.builds(spec.Probe, command=st.builds(spec.StringList, values=st.lists(texts, max_size=2)), start_period=doubles),
)
mounts = st.builds(
    spec.Mount,
    type=st.integers(0, 3),
    source=st.one_of(texts, st.just("/srv"), st.just("")),
    target=st.one_of(texts, st.just("/data")),
    tmpfs_mode=st.one_of(st.just(0), uints),
    propagation=st.one_of(st.just(""), st.just("rshared"), texts),
)
ports = st.builds(
    spec.Port, protocol=st.integers(0, 2), target=uints, published=st.one_of(st.just(0), uints), mode=st.integers(0, 2)
)
# Up to three fields of a good spec become anything.
fields: dict[str, st.SearchStrategy[Any]] = {
    "name": texts,
    "mode": st.integers(0, 2),
    "replicas": uints,
    "endpoint_mode": st.integers(0, 2),
    "ports": st.lists(ports, max_size=2),
    "update": policies,
    "rollback": policies,
    "task__drain_timeout": doubles,
    "task__placement__constraints": st.lists(texts, max_size=1),
    "task__placement__max_per_node": uints,
    "task__networks": st.lists(
        st.builds(spec.NetworkAttachment, network_id=texts, aliases=st.lists(texts)), max_size=2
    ),
    "task__resources__limit_memory": st.integers(-(2**63), 2**63 - 1),
    "task__container__image": texts,
    "task__container__env": st.lists(texts, max_size=2),
    "task__container__hostname": texts,
    "task__container__user": texts,
    "task__container__workdir": texts,
    "task__container__mounts": st.lists(mounts, max_size=2),
    "task__container__probe": probes,
    "task__container__stop_signal": texts,
    "task__container__cap_add": st.lists(texts, max_size=2),
    "task__container__sysctls": st.dictionaries(texts, texts, max_size=1),
}
specs = (
    st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
    .map(lambda changes: wanted_with(**changes))
)


@settings(max_examples=300, deadline=None)
@given(specs)
def test_anything_is_refused_with_a_sentence_or_completed_for_good(wanted: spec.ServiceSpec) -> None:
    world = cluster()
    before = wanted.SerializeToString(deterministic=True)
    try:
        service = admission.create_service(world, wanted, "id", "r", NOW).service
    except PyswarmError as error:
        assert str(error)[-1] in ".?"
        assert "\n" not in str(error)
    else:
        assert all(1 <= port.published <= 65535 for port in service.spec.ports)
        again = admission.update_service(world, service, service.spec, "r2", NOW).service
        assert again.spec == service.spec
    assert wanted.SerializeToString(deterministic=True) == before
