"""A real etcd for tests, on loopback, that can be killed, paused and restarted, and leaves nothing behind.

with EtcdProcess(tmp_path) as etcd:
    store = await EtcdStore.connect([etcd.endpoint], None)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pyswarm_core import tls

ETCD = shutil.which("etcd")
needs_etcd = pytest.mark.skipif(ETCD is None, reason="needs the etcd binary: install the package etcd-server")


def free_port(host: str = "127.0.0.1") -> int:
    """Below the kernel's range for outgoing connections, so that nobody takes it while etcd is down."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


class EtcdProcess:
    """One member. `identity` (role etcd) makes it TLS for clients and peers, and refuses workers' certificates."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "etcd",
        host: str = "127.0.0.1",
        client_port: int = 0,
        peer_port: int = 0,
        identity: tls.Identity | None = None,
        election_ms: int = 500,
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.name = name
        self.host = host
        self.client_port = client_port or free_port(host)
        self.peer_port = peer_port or free_port(host)
        self.identity = identity
        self.initial_cluster = f"{name}={self.peer_url}"
        self.initial_state = "new"
        self._election_ms = election_ms
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.host}:{self.client_port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.identity else "http"

    @property
    def client_url(self) -> str:
        return f"{self._scheme}://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.peer_port}"

    @property
    def data(self) -> Path:
        return self.folder / f"{self.name}.data"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"etcd {self.name} is not running"
        return self._process.pid

    def start(self, *, wait: bool = True, timeout: float = 30.0) -> None:
        """Starts it; `wait` until it answers linearizable reads (for that, a cluster needs its majority)."""
        assert self._process is None, f"etcd {self.name} runs already"
        assert ETCD, "there is no etcd binary"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [ETCD, "--name", self.name, "--data-dir", str(self.data), "--logger", "zap"]
        command += ["--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url]
        command += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url]
        command += ["--initial-cluster", self.initial_cluster, "--initial-cluster-state", self.initial_state]
        command += ["--heartbeat-interval", str(self._election_ms // 10), "--election-timeout", str(self._election_ms)]
        if self.identity:
            certificates = self.folder / f"{self.name}.tls"
            self.identity.save(certificates)
            for side in ("", "peer-"):
                command += [f"--{side}cert-file", str(certificates / tls.CERT_FILE)]
                command += [f"--{side}key-file", str(certificates / tls.KEY_FILE)]
                command += [f"--{side}trusted-ca-file", str(certificates / tls.CA_FILE)]
                command += [f"--{side}client-cert-auth", f"--{side or 'client-'}cert-allowed-hostname", tls.STORE_NAME]
        command += self._arguments
        # It dies with us even when we are killed with SIGKILL. (preexec_fn would not be safe beside gRPC's threads.)
        setpriv = shutil.which("setpriv")
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        if wait:
            self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not self._healthy():
            process = self._process
            if process is None or process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"etcd {self.name} did not become ready; its log ends:\n{tail}")
            time.sleep(0.02)

    def _healthy(self) -> bool:
        context = None
        if self.identity:
            certificates = self.folder / f"{self.name}.tls"
            context = ssl.create_default_context(cafile=str(certificates / tls.CA_FILE))
            context.check_hostname = False
            context.load_cert_chain(certificates / tls.CERT_FILE, certificates / tls.KEY_FILE)
        try:
            with urllib.request.urlopen(f"{self.client_url}/health", timeout=1, context=context) as answer:
                return bool(json.load(answer)["health"] == "true")
        except (OSError, ValueError):
            return False

    def kill(self) -> None:
        """SIGKILL. Not running is no error."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM. Not running is no error."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Returns when each of its threads has stopped, which the kernel does not promise of the signal itself."""
        os.kill(self.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
            time.sleep(0.01)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, wait: bool = True) -> None:
        """kill and start on the same ports and data."""
        self.kill()
        self.start(wait=wait)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # a paused one would not see SIGTERM
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def __enter__(self) -> EtcdProcess:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


@contextmanager
def etcd_cluster(folder: Path, size: int = 3, *, authority: tls.Authority | None = None) -> Iterator[list[EtcdProcess]]:
    """`size` members on one machine; with an authority, TLS between all."""
    members = []
    for number in range(1, size + 1):
        name = f"etcd-{number}"
        identity = authority.issue(common_name=name, role="etcd", addresses=["127.0.0.1"]) if authority else None
        members.append(EtcdProcess(folder, name=name, identity=identity, election_ms=1000))
    with ExitStack() as stack:
        for member in members:
            member.initial_cluster = ",".join(f"{m.name}={m.peer_url}" for m in members)
            stack.callback(member.__exit__)
            member.start(wait=False)
        for member in members:
            member.wait_ready()
        yield members
