"""Texts → values: everything that is documented, everything that is wrong, and that nothing else can come out. One
table a parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.parse import durations, fields, mounts, numbers, pairs, ports, processes, references
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

TCP, UDP = spec.PROTOCOL_TCP, spec.PROTOCOL_UDP
INGRESS, HOST = spec.PUBLISH_MODE_INGRESS, spec.PUBLISH_MODE_HOST


def only_refuses(parse, text):  # type: ignore[no-untyped-def]
    """Whatever the text: a value, or an InvalidInput of one line that is not empty."""
    try:
        return parse(text)
    except InvalidInput as error:
        assert str(error).strip()
        assert "Traceback" not in str(error)
        return None


ANY_TEXT = st.one_of(st.text(max_size=40), st.from_regex(r"[0-9a-z:=,./_-]{0,30}", fullmatch=True))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25), ("1h2m3s", 3723),
        ("10us", 1e-5), ("10µs", 1e-5), ("100ns", 1e-7), ("1d", 86400), (" 5s ", 5), (".5s", 0.5),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert math.isclose(durations.duration(text), seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a duration"), ("10", "did you mean 10s"), ("-5s", "negative"), ("5", "did you mean 5s"),
        ("5 s", "not a duration"), ("s", "not a duration"), ("1x", "not a duration"), ("1s2", "not a duration"),
        ("1e3s", "not a duration"), ("366d", "longer than a year"), ("inf", "not a duration"),
        ("nan", "not a duration"), ("٣s", "not a duration"), ("5s\n;", "not a duration"),
    ],
)  # fmt: skip
def test_durations_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        durations.duration(text)


def test_zero_is_no_positive_duration() -> None:
    with pytest.raises(InvalidInput, match="longer than 0s"):
        durations.positive_duration("0s")


@given(st.integers(0, 10_000_000))
def test_a_shown_duration_reads_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert math.isclose(durations.duration(durations.show(seconds)), seconds, abs_tol=1e-3)


@given(ANY_TEXT)
def test_any_text_as_duration(text: str) -> None:
    found = only_refuses(durations.duration, text)
    assert found is None or 0 <= found <= durations.LONGEST


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("64M", 64 << 20), ("1g", 1 << 30), ("512k", 512 << 10), ("512KiB", 512 << 10), ("1GB", 1 << 30),
        ("1.5g", 3 << 29), ("100", 100), ("100b", 100), ("1t", 1 << 40), ("64 M", 64 << 20),
    ],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert numbers.size(text) == value


@pytest.mark.parametrize("text", ["", "-1", "M", "1x", "1e9", "2000000t", "64MM", "1.g", "inf"])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        numbers.size(text)


@given(st.integers(0, 1 << 59))
def test_a_shown_size_reads_back(value: int) -> None:
    assert numbers.size(numbers.show_size(value)) == value


@given(ANY_TEXT)
def test_any_text_as_size(text: str) -> None:
    found = only_refuses(numbers.size, text)
    assert found is None or 0 <= found < 1 << 60


def test_memory_has_a_least() -> None:
    assert numbers.memory("0") == 0
    assert numbers.memory("6M") == 6 << 20
    with pytest.raises(InvalidInput, match="too little"):
        numbers.memory("5M")


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("0.5", 500_000_000), ("2", 2_000_000_000), (".25", 250_000_000)]
)
def test_cpus(text: str, value: int) -> None:
    assert numbers.cpus(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1e3", "0.001", "20000", "half", "nan"])
def test_cpus_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        numbers.cpus(text)


@pytest.mark.parametrize("text", ["-1", "10001", "1000000000", "3.5", "three", "", "0x3", "1" * 40])
def test_replicas_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="number of replicas"):
        numbers.replicas(text)


@pytest.mark.parametrize("text", ["-0.1", "1.1", "10%", "", "nan"])
def test_ratios_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        numbers.ratio(text)


def port(published: int, target: int, protocol: int = TCP, mode: int = INGRESS) -> spec.Port:
    return spec.Port(published=published, target=target, protocol=protocol, mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", [port(0, 80)]),
        ("8080:80", [port(8080, 80)]),
        ("8080:80/udp", [port(8080, 80, UDP)]),
        ("8080:80/TCP", [port(8080, 80)]),
        ("53/udp", [port(0, 53, UDP)]),
        ("0:80", [port(0, 80)]),
        (":80", [port(0, 80)]),
        ("8000-8002:80-82", [port(8000, 80), port(8001, 81), port(8002, 82)]),
        ("80-81", [port(0, 80), port(0, 81)]),
        ("published=8080,target=80", [port(8080, 80)]),
        ("target=80", [port(0, 80)]),
        ("published=8080,target=80,protocol=udp,mode=host", [port(8080, 80, UDP, HOST)]),
        ("mode=ingress,target=80,published=8080", [port(8080, 80)]),
    ],
)
def test_ports(text: str, wanted: list[spec.Port]) -> None:
    assert ports.ports(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a port"),
        ("0", "between 1 and 65535"),
        ("65536", "between 1 and 65535"),
        ("8080:0", "between 1 and 65535"),
        ("8080:99999", "between 1 and 65535"),
        ("-1:80", "whole number"),
        ("http:80", "whole number"),
        ("8080:80/sctp", "must be tcp or udp"),
        ("8080:80/", "must be tcp or udp"),
        ("127.0.0.1:8080:80", "every address of every host"),
        ("8000-8002:80", "differ in length: 3 published, 1 inside"),
        ("8002-8000:80-82", "backwards"),
        ("1-60000:1-60000", "more than 1000"),
        ("published=8080", "no target"),
        ("published=8080,target=80,mode=swarm", "must be ingress or host"),
        ("published=8080,target=80,flavour=x", "unknown field 'flavour'"),
        ("targt=80", "did you mean 'target'"),
        ("target=80,mode=host", "needs a published port"),
        ("target=80,target=81", "'target' twice"),
        ("8080:80:", "every address"),
        ("8080;80", "whole number"),
    ],
)
def test_ports_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ports.ports(text)


@given(ANY_TEXT)
def test_any_text_as_port(text: str) -> None:
    for found in only_refuses(ports.ports, text) or []:
        assert 1 <= found.target <= 65535
        assert 0 <= found.published <= 65535


@given(
    st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]), st.sampled_from(["ingress", "host"])
)
def test_both_forms_say_the_same(published: int, target: int, protocol: str, mode: str) -> None:
    long = ports.ports(f"published={published},target={target},protocol={protocol},mode={mode}")
    assert long == [port(published, target, ports.PROTOCOLS[protocol], ports.MODES[mode])]
    if mode == "ingress":
        assert ports.ports(f"{published}:{target}/{protocol}") == long


@pytest.mark.parametrize(
    ("text", "wanted"), [("80", (80, None)), ("80/udp", (80, UDP)), ("8080:80", (80, None)), ("8080:80/tcp", (80, TCP))]
)
def test_ports_to_remove(text: str, wanted: tuple[int, int | None]) -> None:
    assert ports.target(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "type=bind,source=/srv,target=/data,readonly",
            spec.Mount(type=spec.MOUNT_TYPE_BIND, source="/srv", target="/data", read_only=True),
        ),
        (
            "type=bind,src=/srv,dst=/data,ro=false,bind-propagation=rslave",
            spec.Mount(type=spec.MOUNT_TYPE_BIND, source="/srv", target="/data", propagation="rslave"),
        ),
        ("source=cache,target=/c", spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="cache", target="/c")),
        ("type=volume,destination=/c/", spec.Mount(type=spec.MOUNT_TYPE_VOLUME, target="/c")),
        (
            "type=tmpfs,target=/run,tmpfs-size=64M,tmpfs-mode=1770",
            spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/run", tmpfs_size=64 << 20, tmpfs_mode=0o1770),
        ),
        (
            "type=volume,source=data-{{.Task.Slot}},target=/d",
            spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="data-{{.Task.Slot}}", target="/d"),
        ),
        (
            'type=bind,"source=/a,b",target=/d',
            spec.Mount(type=spec.MOUNT_TYPE_BIND, source="/a,b", target="/d"),
        ),
    ],
)
def test_mounts(text: str, wanted: spec.Mount) -> None:
    assert mounts.mount(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a:/b", "write type=bind"),
        ("type=bind,source=/a", "absolute path in the container"),
        ("type=bind,source=a,target=/b", "absolute path on the host"),
        ("type=bind,target=/b", "absolute path on the host"),
        ("type=volume,source=/a,target=/b", "write type=bind"),
        ("type=volume,source=..,target=/b", "cannot be a volume's name"),
        ("type=tmpfs,source=x,target=/b", "has no source"),
        ("type=tmpfs,target=/b,bind-propagation=shared", "its type is tmpfs"),
        ("type=bind,source=/a,target=/b,tmpfs-size=1M", "its type is bind"),
        ("type=tmpfs,target=/b,tmpfs-mode=999", "octal"),
        ("type=bind,source=/a,target=/", "whole file system"),
        ("type=bind,source=/a,target=/../", "whole file system"),
        ("type=npipe,source=/a,target=/b", "must be bind, volume or tmpfs"),
        ("type=bind,source=/a,target=/b,readonly=maybe", "must be true or false"),
        ("type=bind,source=/a,target=/b,color=red", "unknown field 'color'"),
        ("type=bind,source,target=/b", "needs a value"),
        ('type=bind,"source=/a,target=/b', "cannot be read"),
    ],
)
def test_mounts_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        mounts.mount(text)


@given(ANY_TEXT)
def test_any_text_as_mount(text: str) -> None:
    found = only_refuses(mounts.mount, text)
    assert found is None or found.target.startswith("/")


def test_environment() -> None:
    assert pairs.env("A=1=2", {}) == "A=1=2"
    assert pairs.env("A=", {}) == "A="
    assert pairs.env("HOME", {"HOME": "/root"}) == "HOME=/root"
    assert pairs.env("HOME", {}) is None
    for bad in ("=x", "A B=1", "", "A\0=1", "A=\0"):
        with pytest.raises(InvalidInput):
            pairs.env(bad, {})


def test_later_environment_wins_in_its_first_place() -> None:
    assert pairs.merge_env(["A=1", "B=2"], ["A=3", "C=4"]) == ["A=3", "B=2", "C=4"]


def test_labels_and_sysctls() -> None:
    assert pairs.label("a.b/c=x=y") == ("a.b/c", "x=y")
    assert pairs.label("alone") == ("alone", "")
    assert pairs.sysctl("net/core/somaxconn=1") == ("net.core.somaxconn", "1")
    for bad in ("somaxconn=1", "net.core.somaxconn", "=1"):
        with pytest.raises(InvalidInput):
            pairs.sysctl(bad)


def test_ulimits() -> None:
    assert pairs.ulimit("nofile=1024:2048") == spec.Ulimit(name="nofile", soft=1024, hard=2048)
    assert pairs.ulimit("nofile=1024") == spec.Ulimit(name="nofile", soft=1024, hard=1024)
    assert pairs.ulimit("core=unlimited") == spec.Ulimit(name="core", soft=-1, hard=-1)
    for bad in ("files=1", "nofile", "nofile=2:1", "nofile=-1:5", "nofile=x", "nofile=-2", "nofile="):
        with pytest.raises(InvalidInput):
            pairs.ulimit(bad)


def test_hosts_and_networks() -> None:
    assert pairs.host("db:10.0.0.1") == spec.HostEntry(hostname="db", address="10.0.0.1")
    assert pairs.host("db=10.0.0.1") == spec.HostEntry(hostname="db", address="10.0.0.1")
    assert pairs.host("db:[::1]") == spec.HostEntry(hostname="db", address="::1")
    assert pairs.network("front") == spec.NetworkAttachment(network_id="front")
    assert pairs.network("name=front,alias=a,alias=b") == spec.NetworkAttachment(network_id="front", aliases=["a", "b"])
    for parse, bad in ((pairs.host, "db"), (pairs.host, "db:x"), (pairs.network, "alias=a"), (pairs.network, "")):
        with pytest.raises(InvalidInput):
            parse(bad)


def test_log_options() -> None:
    assert pairs.log_options("max-size=10m,max-file=3") == {"max_size": 10 << 20, "max_file": 3}
    for bad in ("max-size=1", "max-file=0", "mode=blocking", "max-size"):
        with pytest.raises(InvalidInput):
            pairs.log_options(bad)


def test_placement() -> None:
    assert pairs.constraint(" node.labels.zone == a ") == "node.labels.zone==a"
    assert pairs.preference("spread=node.labels.zone") == "spread=node.labels.zone"
    for parse, bad in ((pairs.constraint, "zone==a"), (pairs.constraint, "node.role"), (pairs.preference, "zone")):
        with pytest.raises(InvalidInput):
            parse(bad)


def test_capabilities() -> None:
    assert processes.capability("net_admin") == "CAP_NET_ADMIN"
    assert processes.capability("CAP_SYS_TIME") == "CAP_SYS_TIME"
    assert processes.capability("all") == "ALL"
    with pytest.raises(InvalidInput, match="did you mean NET_ADMIN"):
        processes.capability("NET_ADMN")


@pytest.mark.parametrize(
    ("text", "name"), [("TERM", "SIGTERM"), ("sigint", "SIGINT"), ("15", "SIGTERM"), ("RTMIN+3", "SIGRTMIN+3")]
)
def test_signals(text: str, name: str) -> None:
    assert processes.stop_signal(text) == name


@pytest.mark.parametrize("text", ["", "TERMINATE", "0", "999", "SIG", "RTMIN+x"])
def test_signals_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        processes.stop_signal(text)


def test_probes() -> None:
    assert processes.http_probe("80/healthz?x=1") == spec.HttpCheck(port=80, path="/healthz?x=1")
    assert processes.http_probe("80") == spec.HttpCheck(port=80, path="/")
    assert processes.tcp_probe("5432") == spec.TcpCheck(port=5432)
    assert processes.shell_probe("true") == spec.StringList(values=["/bin/sh", "-c", "true"])
    for parse, bad in (
        (processes.http_probe, "/healthz"),
        (processes.http_probe, "http://x"),
        (processes.http_probe, "0/x"),
        (processes.http_probe, "80/a b"),
        (processes.tcp_probe, "70000"),
        (processes.shell_probe, " "),
    ):
        with pytest.raises(InvalidInput):
            parse(bad)  # type: ignore[operator]


def test_words_and_fields() -> None:
    assert processes.words("sh -c 'a b'") == ["sh", "-c", "a b"]
    with pytest.raises(InvalidInput, match="cannot be split"):
        processes.words("'")
    with pytest.raises(InvalidInput, match="must be true or false"):
        fields.boolean("perhaps", "it")


@pytest.mark.parametrize(
    ("text", "full", "registry"),
    [
        ("web", "docker.io/library/web:latest", "docker.io"),
        ("team/web:v1", "docker.io/team/web:v1", "docker.io"),
        ("registry.lab:5000/web", "registry.lab:5000/web:latest", "registry.lab:5000"),
        ("localhost/web", "localhost/web:latest", "localhost"),
    ],
)
def test_references(text: str, full: str, registry: str) -> None:
    assert references.full(text) == full
    assert references.registry(text) == registry


def test_references_refused() -> None:
    for bad in ("", "Web", "web:", "web@sha256:xyz", "a b", "https://x/web"):
        with pytest.raises(InvalidInput):
            references.check(bad)
    for bad in ("https://registry.lab", "registry.lab/web", "", "a b"):
        with pytest.raises(InvalidInput):
            references.check_registry(bad)


def test_images_are_shown_as_they_are_written() -> None:
    assert references.familiar("docker.io/library/web:latest") == "web:latest"
    assert references.familiar("docker.io/team/web:v1") == "team/web:v1"
    assert references.familiar("registry.lab:5000/web:v1") == "registry.lab:5000/web:v1"
