"""Building and pushing: what is read from buildah's output, and, given root, the whole with a real registry."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Run
from tests.support.fake_control import AUTHORITY, CLIENT

from pyswarm_cli.commands.image import rows
from pyswarm_cli.images.push import PushReport
from pyswarm_cli.images.workshop import hosts_file, registries_file
from pyswarm_core import contexts
from pyswarm_core.contexts import Context

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NEEDED = ("buildah", "docker-registry", "unshare", "busybox")
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in NEEDED),
    reason=f"needs root and {', '.join(NEEDED)}: it mounts file systems and runs a registry",
)


def context(managers: str = "127.0.0.1:1", port: int = 5000) -> Context:
    return Context(
        managers=(managers,),
        ca=CLIENT.ca_pem.decode(),
        cert=CLIENT.cert_pem.decode(),
        key=CLIENT.key_pem.decode(),
        hosts={"registry.lab": "127.0.0.1"},
        registry_ca={f"registry.lab:{port}": AUTHORITY.ca_pem.decode()},
    )


def test_layers_that_were_sent_and_those_that_were_there() -> None:
    report = PushReport()
    told = [
        report.hear(line)
        for line in (
            "Getting image source signatures",
            f"Copying blob {A}",
            f"Copying blob {B}",
            f'time="2026-11-24T14:25:22Z" level=debug msg="Skipping blob {B} (already present):"',
            'time="2026-11-24T14:25:22Z" level=debug msg="... not present"',
            "Copying config sha256:cc",
        )
    ]
    assert [line for line in told if line] == ["layer bbbbbbbbbbbb: already there"]
    assert report.sent == [A]
    assert report.summary() == "1 layer sent, 1 layer already there"


def test_why_a_push_failed() -> None:
    report = PushReport()
    report.hear('time="x" level=debug msg="nothing"')
    assert report.why() == "buildah gave no reason"
    report.hear('time="x" level=error msg="pushing \\"a\\": no such host"')
    assert report.why() == 'pushing "a": no such host'
    report.hear("Error: a:  image not known")
    assert report.why() == "a: image not known"


def test_the_contexts_names_come_first() -> None:
    assert hosts_file("127.0.0.1 localhost\n", context()) == "127.0.0.1 registry.lab\n127.0.0.1 localhost\n"
    assert hosts_file("x\n", None) == "x\n"


def test_unqualified_names_are_dockers_unless_the_machine_says_otherwise() -> None:
    assert registries_file("[[registry]]\n").splitlines()[0] == 'unqualified-search-registries = ["docker.io"]'
    own = '# unqualified-search-registries = ["x"]\nunqualified-search-registries = ["quay.io"]\n'
    assert registries_file(own) == own


def test_an_image_has_a_row_for_each_name() -> None:
    found = rows(
        [
            {"id": "a", "names": ["r.lab:5000/web:v1", "docker.io/library/web:v2"], "created": 5, "size": "4 MB"},
            {"id": "sha256:b", "names": None, "created": 6},
        ]
    )
    assert [(row["repository"], row["tag"], row["id"]) for row in found] == [
        ("<none>", "<none>", "b"),
        ("docker.io/library/web", "v2", "a"),
        ("r.lab:5000/web", "v1", "a"),
    ]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """registry.lab:PORT, by TLS on loopback, and a selected context in which that name leads there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    AUTHORITY.issue(common_name="registry", role="etcd", names=["registry.lab"]).save(tmp_path / "tls")
    tls = f"{{certificate: {tmp_path}/tls/cert.pem, key: {tmp_path}/tls/key.pem}}"
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', tls: {tls}}}\n"
    )
    monkeypatch.setenv("PYSWARM_BUILD_ROOT", str(tmp_path / "build"))
    contexts.save("here", context(port=port))
    contexts.select("here")
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the registry did not start"
                time.sleep(0.05)
        yield f"registry.lab:{port}"
    finally:
        process.kill()
        process.wait()


@needs_root
def test_build_push_and_list(run: Run, registry: str, tmp_path: Path) -> None:
    before = Path("/etc/hosts").read_bytes()
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy2(shutil.which("busybox") or "", source / "busybox")
    (source / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/sh\nARG V\nRUN ["/bin/sh", "-c", "echo $V > /version"]\nCMD ["/bin/sh"]\n'
    )
    built = run("image", "build", "-t", f"{registry}/box:1", "--build-arg", "V=1", str(source))
    assert built.exit_code == 0, built.output
    assert len(built.stdout.strip()) == 64
    assert "STEP 1/5" in built.stderr
    pushed = run("image", "push", f"{registry}/box:1")
    assert pushed.exit_code == 0, pushed.output
    assert pushed.stdout.startswith(f"{registry}/box:1@sha256:")
    assert "2 layers sent, 0 layers already there" in pushed.stderr
    assert run("image", "build", "-q", "-t", f"{registry}/box:2", "--build-arg", "V=2", str(source)).stderr == ""
    assert "1 layer sent, 1 layer already there" in run("image", "push", f"{registry}/box:2").stderr
    listed = json.loads(run("image", "ls", "--format", "json").stdout)
    assert sorted(row["tag"] for row in listed) == ["1", "2"]
    made = [row["created_at"] for row in listed]
    assert made == sorted(made, reverse=True), "the newest first; by the second, so these two may be equal"
    assert run("image", "ls").stdout.splitlines()[0].split()[:2] == ["REPOSITORY", "TAG"]
    # what a Dockerfile builds on comes from the same registry
    (source / "Dockerfile").write_text(f"FROM {registry}/box:1\nLABEL a=b\n")
    assert run("image", "build", "-q", "-t", "other", str(source)).exit_code == 0
    # and what cannot be
    (source / "Dockerfile").write_text("FROM scratch\nCOPY nowhere /\n")
    failed = run("image", "build", "-q", "-t", "bad", str(source))
    assert failed.exit_code == 1 and "nowhere" in failed.stderr
    unknown = run("image", "push", f"{registry}/none:1")
    assert unknown.exit_code == 1 and "there is no image" in unknown.stderr
    assert Path("/etc/hosts").read_bytes() == before
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@needs_root
def test_a_registry_that_is_down(run: Run, registry: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    away = "registry.lab:1"
    assert run("image", "build", "-q", "-t", f"{away}/x", str(source)).exit_code == 0
    result = run("image", "push", f"{away}/x")
    assert result.exit_code == 1
    assert "was not pushed" in result.stderr and "refused" in result.stderr
    assert len(result.stderr.splitlines()) == 1
