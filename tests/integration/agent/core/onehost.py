"""One real host out of namespaces, with an agent process on it, and a scripted manager in the test's own."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fake_manager import FakeManager

from pyswarm_cli.lab import cgroups, layout, switch
from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core import tls
from pyswarm_core.ids import new_id

NEEDS = ("conmon", "skopeo", "nft", "ip", "nsenter", "unshare", "catatonit", "busybox", "curl")
APPLETS = (
    "sh",
    "sleep",
    "httpd",
    "wget",
    "nslookup",
    "cat",
    "echo",
    "false",
    "true",
    "nc",
    "kill",
    "hostname",
    "mkdir",
)
IMAGE = "localhost/busybox:1"


def missing() -> str:
    """Why these tests cannot run here; "" when they can."""
    if os.geteuid() != 0:
        return "needs root: it makes a host out of namespaces"
    absent = [tool for tool in NEEDS if shutil.which(tool) is None]
    if not any(shutil.which(r) for r in ("crun", "runc")):
        absent.append("crun or runc")
    return f"needs {', '.join(absent)}" if absent else ""


class OneHost:
    """The host outlives its agents. `manager` listens on the machine's end of its cable."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.host: Host = lab.hosts[0]
        authority = tls.Authority.create()
        self.manager = FakeManager(authority, folder, listen=lab.gateway)
        self._tls = folder / "tls"
        self.node_id = new_id(random.SystemRandom())
        authority.issue(common_name=self.node_id, role="worker").save(self._tls)
        self.digest = add_image(folder / "image", self.host.data / "images")

    async def start_agent(self, log_level: str = "debug") -> None:
        command = [
            *(sys.executable, "-m", "pyswarm_cli", "agent", "run", "--managers", self.manager.address),
            *("--tls-dir", str(self._tls), "--address", self.host.address, "--hostname", "host-1"),
            *("--log-level", log_level),
        ]
        await asyncio.to_thread(hosts.start_daemon, self.lab, self.host, "agent", command)

    def agent_pid(self) -> int | None:
        return hosts.daemon_process(self.lab, self.host, "agent")

    async def end_agent(self, number: signal.Signals) -> None:
        pid = self.agent_pid()
        if pid is not None:
            hosts.send(pid, number)
            await asyncio.to_thread(hosts.wait_until, lambda: hosts.gone(pid), 15, "the agent did not end")

    def agent_log(self) -> str:
        path = self.host.log / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def inside(self, *command: str, timeout: float = 20.0) -> tuple[int, str]:
        """Runs a command on the host: (exit code, output)."""
        process = await asyncio.create_subprocess_exec(
            *hosts.enter(self.lab, self.host, command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, output.decode(errors="replace")

    async def leftovers(self) -> str:
        """What of tasks is on the host: namespaces, links, mounts, groups and processes."""
        script = (
            "ls /run/pyswarm/netns /run/pyswarm/containers 2>/dev/null | grep -v : ;"
            "ip -o link | grep -o 'pst[^@:]*';"
            "grep -o '/var/lib/pyswarm/rootfs/[^ ]*' /proc/self/mounts;"
            "find /sys/fs/cgroup -path '*pyswarm*' -name 'cgroup.procs' | head -3;"
            "ps -eo comm | grep -E 'conmon|busybox|httpd'"
        )
        return (await self.inside("sh", "-c", script))[1].strip()


@contextmanager
def one_host(folder: Path) -> Iterator[OneHost]:
    with layout.lock():
        name = f"agent-{os.getpid()}-{secrets.token_hex(2)}"
        octet = layout.free_octet({lab.octet for lab in layout.existing()})
        lab = Lab(name=name, octet=octet, host_count=1, manager_count=1)
        lab.save()
    try:
        host = lab.hosts[0]
        hosts.prepare(lab, host)
        switch.make(lab)
        hosts.boot(lab, host)
        made = OneHost(lab, folder)
        try:
            yield made
        except BaseException:
            print(made.agent_log()[-8000:])
            raise
    finally:
        hosts.power_off(lab, lab.hosts[0])
        switch.remove(lab)
        cgroups.remove(lab.name)
        with layout.lock():
            shutil.rmtree(lab.folder)


def add_image(work: Path, store: Path) -> str:
    """A busybox image FROM scratch, straight into a host's store; returns its digest."""
    blobs = work / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    tree = _tree()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tree).hexdigest()]},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **blob(json.dumps(config).encode())},
        "layers": [{"mediaType": kind + "layer.v1.tar+gzip", **blob(gzip.compress(tree, mtime=0))}],
    }
    entry = {"mediaType": kind + "manifest.v1+json", **blob(json.dumps(manifest).encode())}
    (work / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (work / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    store.mkdir(parents=True, exist_ok=True)
    run_root = work / "run"
    _run(
        "skopeo",
        "copy",
        "-q",
        f"oci:{work}",
        f"containers-storage:[overlay@{store}+{run_root}:overlay.skip_mount_home=true]{IMAGE}",
    )
    return str(entry["digest"])


def _tree() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "www"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        busybox = shutil.which("busybox")
        assert busybox is not None
        program = Path(busybox).read_bytes()
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = len(program), 0o755
        tar.addfile(info, io.BytesIO(program))
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        page = b"hello from a task\n"
        info = tarfile.TarInfo("www/index.html")
        info.size = len(page)
        tar.addfile(info, io.BytesIO(page))
    return data.getvalue()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
