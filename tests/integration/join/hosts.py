"""Bare hosts: namespaces as the lab makes them, with nothing in /etc/pyswarm and no daemon; all by `pyswarm` alone."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab import layout, switch
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_cli.lab.membership import CONFIG, PYSWARM, config_of
from pyswarm_core import tls
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.membership.daemons import command
from pyswarm_manager.join.vault import Vault

MARKS = (
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("etcd"), reason="builds hosts of namespaces: needs root and etcd-server"
    ),
)


class Bare:
    """One host. Its daemons are started by the commands that `init` and `join` print."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.lab = lab
        self.host = host

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def context(self) -> Path:
        """Of root on the host: its folder as this process sees it."""
        return config_of(self.host) / "contexts" / "default"

    def run(self, *words: str, code: int | None = 0) -> str:
        """`pyswarm WORDS…` on the host; returns stdout, or stderr when it fails as it should."""
        command = hosts.enter(self.lab, self.host, [*PYSWARM, *words])
        env = {**hosts.ENVIRONMENT, "PYSWARM_CONFIG_DIR": CONFIG}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=60)
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if done.returncode == 0 else done.stderr

    def start(self, printed: str) -> None:
        for line in printed.splitlines():
            words = shlex.split(line) if line.startswith("    sh -c ") else []
            if words:
                daemon = words[-1].partition("/etc/pyswarm/")[2].partition(".env")[0]
                hosts.start_daemon(self.lab, self.host, daemon, words)

    def pid(self, daemon: str) -> int | None:
        return hosts.daemon_process(self.lab, self.host, daemon)

    def stop(self, daemon: str) -> None:
        from pyswarm_cli.lab import daemons

        daemons.stop(self.lab, self.host, daemon)

    def log(self, daemon: str) -> str:
        path = self.host.log / f"{daemon}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def put(self, path: str, content: bytes) -> None:
        """From within: an overlay does not see what is written to its upper layer beside it."""
        command = hosts.enter(self.lab, self.host, ["sh", "-c", 'cat > "$0"', path])
        subprocess.run(command, input=content, check=True, cwd="/")

    def nodes(self) -> list[dict[str, Any]]:
        """What `node ls` says; empty while nobody answers."""
        out = self.run("node", "ls", "--format", "json", code=None)
        return json.loads(out) if out.startswith("[") else []

    def files(self) -> dict[str, bytes]:
        """All of the host's configuration."""
        folder = self.host.etc / "pyswarm"
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def bare_hosts(count: int) -> Iterator[list[Bare]]:
    with layout.lock():
        octet = layout.free_octet({lab.octet for lab in layout.existing()})
        lab = Lab(name=f"join-{os.getpid()}", octet=octet, host_count=count, manager_count=0)
        lab.save()
    try:
        switch.make(lab)
        for host in lab.hosts:
            hosts.prepare(lab, host)
            hosts.boot(lab, host)
        yield [Bare(lab, host) for host in lab.hosts]
    finally:
        for host in lab.hosts:
            hosts.power_off(lab, host)
            hosts.erase(host)
        switch.remove(lab)
        shutil.rmtree(lab.folder, ignore_errors=True)
        from pyswarm_cli.lab import cgroups

        cgroups.remove(lab.name)


def start(bare: Bare, *daemons: str) -> None:
    """By the commands that `init` and `join` print."""
    bare.start("".join(f"    {command(daemon)}\n" for daemon in daemons))


def authority_of(manager: Bare) -> tls.Authority:
    """Out of etcd, with the manager's certificate, as a manager reads it."""

    async def read() -> tls.Authority:
        identity = tls.Identity.load(manager.host.etc / "pyswarm" / "tls")
        store = EtcdStore.connect([f"{manager.address}:2379"], identity)
        try:
            return await Vault(store).authority()
        finally:
            await store.close()

    return asyncio.run(read())


def eventually(condition: Callable[[], Any], what: str, *, within: float = 40, bare: Bare | None = None) -> Any:
    deadline = time.monotonic() + within
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            logs = "".join(f"\n== {d}\n{bare.log(d)}" for d in ("etcd", "manager", "agent")) if bare else ""
            raise AssertionError(f"not within {within} s: {what}{logs}")
        time.sleep(0.2)
