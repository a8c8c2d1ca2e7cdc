"""A real docker-registry for tests, on loopback, with its access log: who fetched what.

with Registry(tmp_path) as registry:
    settings = ImageSettings(…, registries_conf=str(registry.registries_conf))
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.etcd import free_port

DOCKER_REGISTRY = shutil.which("docker-registry")
needs_registry = pytest.mark.skipif(DOCKER_REGISTRY is None, reason="needs the package docker-registry")

USER, PASSWORD = "somebody", "secret"
# bcrypt of PASSWORD
_HTPASSWD = "somebody:$2b$04$c5PMwqm1cIymHntJZNRZAOQr3pnC/2.D4a3kR5Eqyr0pOvo7V1TLm\n"


class Registry:
    """With `certificate`, the paths of a certificate and its key, it speaks TLS; without, plain HTTP, which
    `registries_conf` allows. `auth`: only USER with PASSWORD gets in."""

    def __init__(
        self, folder: Path, *, certificate: tuple[Path, Path] | None = None, auth: bool = False, name: str = "127.0.0.1"
    ) -> None:
        self.folder = folder / f"registry-{free_port()}"
        self.port = free_port()
        self.host = f"{name}:{self.port}"
        self.registries_conf = self.folder / "registries.conf"
        self._certificate = certificate
        self.needs_auth = auth
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "registry.log"

    def __enter__(self) -> Registry:
        self.folder.mkdir(parents=True)
        http: dict[str, object] = {"addr": f"127.0.0.1:{self.port}"}
        if self._certificate is not None:
            http["tls"] = {"certificate": str(self._certificate[0]), "key": str(self._certificate[1])}
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if self.needs_auth:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}}
        (self.folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        insecure = "true" if self._certificate is None else "false"
        self.registries_conf.write_text(f'[[registry]]\nlocation = "{self.host}"\ninsecure = {insecure}\n')
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(DOCKER_REGISTRY), "serve", str(self.folder / "config.yml")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"docker-registry does not answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def fetched_blobs(self) -> Sequence[str]:
        """The digests of all blobs that were downloaded, in order, as often as they were."""
        return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64}) HTTP/\S+" 200', self._log.read_text())

    def digest(self, repository: str, reference: str) -> str:
        """Of a manifest that is here."""
        accept = (
            "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, "
            "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
        )
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/{repository}/manifests/{reference}", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
