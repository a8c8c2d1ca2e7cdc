"""A lab for tests: its hosts, its images, the command line, clients under load, and the check that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
PYSWARM = [str(Path(sys.executable).parent / "pyswarm")]
REGISTRY = "registry.lab:5000"
SOAK = os.environ.get("SOAK") == "1"
WAIT = 60.0
L = TypeVar("L", bound="LabUnderTest")


def eventually(check: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """Polls until `check` returns something true and returns that; fails with its last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds:.0f} s; last answer: {answer!r}")
        time.sleep(0.05)


class LabUnderTest:
    def __init__(self, name: str, config: Path) -> None:
        self.name = name
        self.environment = {**os.environ, "PYSWARM_CONFIG_DIR": str(config), "PYSWARM_CONTEXT": name}
        self.environment["PYSWARM_BUILD_ROOT"] = str(config / "build")
        self.addresses: list[str] = []

    def run(self, *arguments: str, timeout: float = 180, stdin: str | None = None, cwd: Path | None = None):  # type: ignore[no-untyped-def]
        """Runs `pyswarm ARGUMENTS`; any exit code."""
        return subprocess.run(
            [*PYSWARM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            cwd=cwd,
        )

    def cli(self, *arguments: str, code: int = 0, timeout: float = 180, cwd: Path | None = None) -> str:
        """Its standard output; fails when the exit code is another."""
        done = self.run(*arguments, timeout=timeout, cwd=cwd)
        assert done.returncode == code, (
            f"pyswarm {' '.join(arguments)} exited {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        return str(done.stdout)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = json.loads(self.cli(*arguments, "--format", "json"))
        return answer

    def lab(self, verb: str, *arguments: str, code: int = 0) -> str:
        return self.cli("lab", verb, "--name", self.name, *arguments, code=code)

    def on(self, host: str, *command: str) -> str:
        return self.lab("exec", host, "--", *command)

    def up(self, hosts: int = 3, managers: int = 1) -> None:
        self.lab("up", "--hosts", str(hosts), "--managers", str(managers))
        self.addresses = [line.split()[1] for line in self.lab("ls").splitlines()[1:]]

    def down(self) -> None:
        self.lab("down")

    # what runs

    def tasks(self, service: str) -> list[dict[str, Any]]:
        return self.json("service", "ps", service)

    def running(self, service: str) -> list[dict[str, Any]]:
        return [t for t in self.tasks(service) if t["state"] == "running" and t["desired_state"] == "running"]

    def service(self, name: str) -> dict[str, Any]:
        return self.json("service", "inspect", name)[0]

    def kill_container(self, task: dict[str, Any]) -> None:
        """SIGKILL to every process of the task, found by its cgroup."""
        script = (
            f"for p in /proc/[0-9]*; do grep -q {task['id']} $p/cgroup 2>/dev/null && kill -9 ${{p#/proc/}}; done; true"
        )
        self.on(task["node"], "sh", "-c", script)

    def remove_services(self) -> None:
        names = [s["name"] for s in self.json("service", "ls")]
        if names:
            self.cli("service", "rm", *names)
        eventually(lambda: not self.json("service", "ls"), "the removal of all services")

    # images

    def build_images(self, scratch: Path) -> None:
        """web:v1 and web:v2 (examples/web), busybox:1, crash:1 (prints and exits 3)."""
        base = scratch / "python"
        shutil.copytree(REPOSITORY / "examples/python", base)
        subprocess.run(["/usr/bin/python3", str(base / "collect.py"), str(base / "root")], check=True)
        self.build(f"{REGISTRY}/python:3", base)
        web = REPOSITORY / "examples/web"
        for version in ("v1", "v2"):
            self.build(f"{REGISTRY}/web:{version}", web, "--build-arg", f"VERSION={version}")
        box = scratch / "busybox"
        box.mkdir()
        shutil.copy2("/bin/busybox", box / "busybox")
        (box / "Dockerfile").write_text(
            "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n"
            'RUN ["/bin/busybox", "--install", "-s", "/bin"]\nRUN mkdir /tmp\nCMD ["sleep", "1000000"]\n'
        )
        self.build(f"{REGISTRY}/busybox:1", box)
        crash = scratch / "crash"
        crash.mkdir()
        (crash / "Dockerfile").write_text(
            f'FROM {REGISTRY}/busybox:1\nCMD ["sh", "-c", "echo cannot read the configuration; exit 3"]\n'
        )
        self.build(f"{REGISTRY}/crash:1", crash)

    def build(self, tag: str, folder: Path, *options: str) -> None:
        self.cli("image", "build", "-t", tag, *options, str(folder))
        self.cli("image", "push", tag)

    # clients

    @contextlib.contextmanager
    def load(self, port: int, report: Path, *options: str, on: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Clients on the port of all hosts, or of those with the addresses `on`, while the block runs; the dictionary
        is filled with their report after it."""
        addresses = self.addresses if on is None else on
        with under_load([f"http://{address}:{port}/" for address in addresses], report, *options) as figures:
            yield figures


@contextlib.contextmanager
def running(lab: L, *, hosts: int = 3, managers: int = 1) -> Iterator[L]:
    """The lab is up in the block, and nothing is left of it afterwards."""
    lab.up(hosts=hosts, managers=managers)
    try:
        yield lab
    finally:
        lab.down()
        assert leftovers(lab.name) == []


@contextlib.contextmanager
def under_load(urls: Sequence[str], report: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Clients of all of them while the block runs; the dictionary is filled with their report after it."""
    command = ["/usr/bin/python3", str(REPOSITORY / "examples/load.py"), "--report", str(report), *options, *urls]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    figures: dict[str, Any] = {}
    try:
        assert process.stderr is not None
        assert b"under load" in process.stderr.readline()
        yield figures
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        figures.update(json.loads(report.read_text()))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def leftovers(name: str) -> list[str]:
    """Everything on the machine that only a lab makes: none of it may be there once all labs are down."""
    found = []
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    found += [f"link {link['ifname']}" for link in links if link["ifname"].startswith(("psx", "psc"))]
    tables = subprocess.check_output(["nft", "list", "tables"], text=True)
    found += [f"nft {line}" for line in tables.splitlines() if " pyswarm" in line and "pyswarm_lab" not in line]
    if Path(f"/var/lib/pyswarm/lab/{name}").exists():
        found.append(f"folder /var/lib/pyswarm/lab/{name}")
    mounts = Path("/proc/self/mountinfo").read_text()
    found += [f"mount {line.split()[4]}" for line in mounts.splitlines() if f"/lab/{name}" in line]
    found += [str(p) for p in Path("/sys/fs/cgroup").glob(f"*/pyswarm-lab/{name}")]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = f"/lab/{name}/".encode() in (process / "cmdline").read_bytes()
            if ours or f"pyswarm-lab/{name}/" in (process / "cgroup").read_text():
                found.append(f"process {process.name}")
    return found
