"""Resolving images: a program in skopeo's place that behaves as told, and the real one against a registry of ours."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.images import parse_reference
from pyswarm_manager.api.resolve import SkopeoResolver, Unresolved, pin, reason

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:" + "0" * 64},
        "layers": [],
    }
)
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"platform": {"os": "linux", "architecture": "amd64"}},
            {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"platform": {"os": "unknown", "architecture": "unknown"}},
            {"platform": {"os": "linux", "architecture": "amd64"}},
        ],
    }
)
CONFIG = json.dumps({"os": "linux", "architecture": "riscv64"})


class Program:
    """A stand-in for skopeo, which writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "skopeo"
        self.calls = folder / "calls"
        self.auth = folder / "auth-seen"

    def make(self, raw: str = MANIFEST, config: str = CONFIG, before: str = "") -> SkopeoResolver:
        (self.path.parent / "raw").write_text(raw)
        (self.path.parent / "config").write_text(config)
        self.path.write_text(
            f"""#!/bin/bash
echo "$*" >> {self.calls}
while [ $# -gt 0 ]; do
  if [ "$1" = --authfile ]; then stat -c %a "$2" > {self.auth}; cat "$2" >> {self.auth}; fi
  [ "$1" = --raw ] && file=raw; [ "$1" = --config ] && file=config; shift
done
{before}
cat {self.path.parent}/$file
"""
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        return SkopeoResolver(program=str(self.path), timeout=5)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


WEB = parse_reference("registry.test/web:v1")


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


async def test_a_single_manifest_takes_its_platform_from_the_config_of_that_very_digest(program: Program) -> None:
    resolved = await program.make().resolve(WEB, None)
    assert resolved.digest == digest_of(MANIFEST)
    assert [(p.os, p.architecture) for p in resolved.platforms] == [("linux", "riscv64")]
    raw, config = program.calls.read_text().splitlines()
    assert raw == "inspect --no-creds --raw docker://registry.test/web:v1"
    assert config == f"inspect --no-creds --config docker://registry.test/web@{digest_of(MANIFEST)}"


async def test_an_index_tells_its_platforms_itself(program: Program) -> None:
    resolved = await program.make(INDEX).resolve(WEB, None)
    assert resolved.digest == digest_of(INDEX)
    found = [(p.os, p.architecture, p.variant) for p in resolved.platforms]
    assert found == [("linux", "amd64", ""), ("linux", "arm64", "v8")]
    assert len(program.calls.read_text().splitlines()) == 1


async def test_credentials_go_by_a_private_file_that_is_gone_afterwards(program: Program) -> None:
    auth = pb.RegistryAuth(host="registry.test", username="me", password="hunter2")
    await program.make(INDEX).resolve(WEB, auth)
    mode, content = program.auth.read_text().splitlines()
    assert mode == "600"
    assert json.loads(content)["auths"]["registry.test"]["auth"] == "bWU6aHVudGVyMg=="
    call = program.calls.read_text()
    assert "hunter2" not in call and "me:" not in call
    name = call.split("--authfile ")[1].split()[0]
    assert not Path(name).exists()


async def test_equal_requests_at_once_are_one(program: Program) -> None:
    resolver = program.make(INDEX, before="sleep 0.2")
    results = await asyncio.gather(*(resolver.resolve(WEB, None) for _ in range(5)))
    assert len({r.digest for r in results}) == 1
    assert len(program.calls.read_text().splitlines()) == 1
    await resolver.resolve(WEB, None)
    assert len(program.calls.read_text().splitlines()) == 2, "nothing is remembered"


async def test_one_that_hangs_is_ended(program: Program, tmp_path: Path) -> None:
    program.make(before=f"echo $$ > {tmp_path}/pid; exec sleep 60")
    resolver = SkopeoResolver(program=str(program.path), timeout=0.3)
    with pytest.raises(Unresolved, match=r"did not answer within 0\.3 s"):
        await resolver.resolve(WEB, None)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_is_missing_or_talks_nonsense(program: Program, tmp_path: Path) -> None:
    with pytest.raises(Unresolved, match="cannot be run"):
        await SkopeoResolver(program=str(tmp_path / "none")).resolve(WEB, None)
    with pytest.raises(Unresolved, match="not a manifest"):
        await program.make("<html>").resolve(WEB, None)


UNKNOWN = r'''level=fatal msg="Error parsing image name \"docker://r/web:v9\": reading manifest v9: manifest unknown"'''
REFUSED = r'''level=fatal msg="pinging: Get \"http://h:5/v2/\": dial tcp 127.0.0.1:5: connect: connection refused"'''


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (UNKNOWN, "the registry has no such tag"),
        (REFUSED, "the registry cannot be reached: connection refused"),
        ('level=fatal msg="a: b: something else entirely"', "something else entirely"),
        ("plain text\nof two lines", "of two lines"),
        ("", "no reason given"),
    ],
)
def test_reasons(stderr: str, said: str) -> None:
    assert reason(stderr) == said


async def test_pinning_replaces_what_was_there_and_warns_when_it_cannot(program: Program) -> None:
    container = spec.ContainerSpec(digest="sha256:old", platforms=[spec.Platform(os="plan9")])
    assert await pin(container, WEB, program.make(INDEX), None) == ""
    assert container.digest == digest_of(INDEX)
    assert "plan9" not in {p.os for p in container.platforms}
    warning = await pin(container, WEB, program.make(before="echo gone >&2; exit 1"), None)
    assert "registry.test/web:v1" in warning and "gone" in warning
    assert not container.digest and not container.platforms


class _Registry(http.server.BaseHTTPRequestHandler):
    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(config),
                "digest": digest_of(config),
            },
            "layers": [],
        }
    )

    def do_GET(self) -> None:
        kind, body, status = "application/json", b"{}", 200
        if self.path in ("/v2/web/manifests/v1", f"/v2/web/manifests/{digest_of(self.manifest)}"):
            kind, body = "application/vnd.docker.distribution.manifest.v2+json", self.manifest.encode()
        elif self.path == f"/v2/web/blobs/{digest_of(self.config)}":
            body = self.config.encode()
        elif self.path != "/v2/":
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            status, body = 404, json.dumps(error).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"127.0.0.1:{server.server_port}"
    configuration = tmp_path / "registries.conf"
    configuration.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    wrapper = tmp_path / "insecure-skopeo"
    wrapper.write_text(f'#!/bin/sh\nexec skopeo --registries-conf {configuration} "$@"\n')
    wrapper.chmod(0o755)
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo: install the package skopeo")
async def test_with_the_real_skopeo(registry: str, tmp_path: Path) -> None:
    resolver = SkopeoResolver(program=str(tmp_path / "insecure-skopeo"))
    resolved = await resolver.resolve(parse_reference(f"{registry}/web:v1"), None)
    assert resolved.digest == digest_of(_Registry.manifest)
    assert [(p.os, p.architecture) for p in resolved.platforms] == [("linux", "arm64")]
    with pytest.raises(Unresolved, match="no such tag"):
        await resolver.resolve(parse_reference(f"{registry}/web:v9"), None)
    with pytest.raises(Unresolved, match="speaks no TLS"):
        await SkopeoResolver().resolve(parse_reference(f"{registry}/web:v1"), None)
    with pytest.raises(Unresolved, match="connection refused"):
        await resolver.resolve(parse_reference("127.0.0.1:1/web:v1"), None)
