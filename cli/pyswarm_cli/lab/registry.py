"""The lab's image registry: docker-registry on the machine's end of the bridge, certified by the lab's CA."""

from __future__ import annotations

import signal
import socket
import subprocess

from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import REGISTRY_PORT, Lab
from pyswarm_core.errors import PyswarmError


def start(lab: Lab) -> None:
    folder = lab.folder / "registry"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(
        f"""version: 0.1
log:
  level: warn
  accesslog:
    disabled: false
storage:
  filesystem:
    rootdirectory: {folder}/images
  delete:
    enabled: true
http:
  addr: {lab.gateway}:{REGISTRY_PORT}
  tls:
    certificate: {folder}/tls/cert.pem
    key: {folder}/tls/key.pem
"""
    )
    with (folder / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=hosts.ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    hosts.remember(folder / "registry.pid", process.pid)


def answers(lab: Lab) -> bool:
    if hosts.recall(lab.folder / "registry" / "registry.pid") is None:
        raise PyswarmError(f"the registry ended at once; see {lab.folder}/registry/registry.log")
    try:
        with socket.create_connection((lab.gateway, REGISTRY_PORT), 0.5):
            return True
    except OSError:
        return False


def stop(lab: Lab) -> None:
    pid = hosts.recall(lab.folder / "registry" / "registry.pid")
    if pid is not None:
        hosts.send(pid, signal.SIGKILL)
        hosts.wait_until(lambda: hosts.gone(pid), 10, "the registry did not end")
