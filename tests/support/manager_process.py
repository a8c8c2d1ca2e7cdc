"""A manager in a process of its own, on loopback, that can be killed; and a client for its API."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from pyswarm_core import tls
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from tests.support.etcd import free_port

_MAIN = """
import json, sys
from pathlib import Path
given = json.loads(sys.argv[1])
for name in [name for name in given if name.endswith("_dir")]:
    given[name] = Path(given[name])
given["etcd_endpoints"] = tuple(given["etcd_endpoints"])
from pyswarm_manager.app import run
from pyswarm_manager.settings import Settings
sys.exit(run(Settings(**given)))
"""


class ManagerProcess:
    """`settings`: fields of `pyswarm_manager.settings.Settings` that differ."""

    def __init__(
        self,
        folder: Path,
        authority: tls.Authority,
        etcd: list[str],
        *,
        name: str = "manager-1",
        **settings: Any,
    ) -> None:
        self.name = name
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        tls_dir = folder / f"{name}.tls"
        authority.issue(common_name=name, role="manager").save(tls_dir)
        self.log = folder / f"{name}.log"
        self._settings = {
            "manager_id": name,
            "advertise": self.address,
            "listen": self.address,
            "metrics_addr": self.metrics,
            "etcd_endpoints": etcd,
            "tls_dir": str(tls_dir),
            "data_dir": str(folder / f"{name}.data"),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [sys.executable, "-c", _MAIN, json.dumps(self._settings)]
        setpriv = shutil.which("setpriv")
        if setpriv:  # it dies with us even when we are killed
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM. Its exit code must be 0."""
        assert self._end(signal.SIGTERM) == 0, self.log.read_text()[-3000:]

    def restart(self) -> None:
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def __enter__(self) -> ManagerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGKILL)

    def rss_kib(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def connect(authority: tls.Authority, address: str) -> AsyncIterator[control_grpc.ControlAsyncStub]:
    """A user's client."""
    identity = authority.issue(common_name="tester", role="client")
    options = [
        *tls.channel_options(),
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    async with grpc.aio.secure_channel(address, tls.client_credentials(identity), options=options) as channel:
        yield control_grpc.ControlStub(channel)


async def ready(stub: control_grpc.ControlAsyncStub, *, within: float = 20.0) -> control.Info:
    """Waits until the manager answers and somebody leads."""
    deadline = time.monotonic() + within
    while True:
        try:
            info = await stub.GetInfo(control.Empty(), timeout=2, wait_for_ready=True)
            if info.leader_address:
                return info
        except grpc.aio.AioRpcError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"no manager: {error.details()}") from None
        assert time.monotonic() < deadline, "nobody leads"
        await asyncio.sleep(0.02)
