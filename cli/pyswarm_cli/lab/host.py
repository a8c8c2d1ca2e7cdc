"""One lab host: a set of namespaces with a first process that only reaps. The machine's pids are used throughout."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pyswarm_cli.lab import cgroups, switch
from pyswarm_cli.lab.layout import REGISTRY_NAME, Host, Lab
from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_core.membership import daemons

INIT = Path(__file__).with_name("init.sh")
# A daemon gets what systemd would give it, not the caller's shell.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def wait_until(done: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise PyswarmError(f"{what} within {seconds:.0f} s")
        time.sleep(0.02)


def _start_time(pid: int) -> str | None:
    """Tells a pid from its reuse; None when there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def remember(path: Path, pid: int) -> None:
    path.write_text(f"{pid} {_start_time(pid)}")


def recall(path: Path) -> int | None:
    try:
        pid, _, started = path.read_text().partition(" ")
    except FileNotFoundError:
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def first_process(host: Host) -> int | None:
    return recall(host.folder / "init.pid")


def daemon_process(lab: Lab, host: Host, daemon: str) -> int | None:
    """Who was started here, or else by the host itself: an agent starts what its host is promoted for."""
    known = recall(host.folder / f"{daemon}.pid")
    if known is None:
        for pid in cgroups.pids(lab.name, host.name):
            if daemons.is_one(daemons.command_line(pid), daemon) and len(_pids_of(pid)) == 2:
                known = pid
                remember(host.folder / f"{daemon}.pid", pid)
                break
    return known


def _pids_of(pid: int) -> list[str]:
    """In each pid namespace that it is in, the machine's first: two of a host's own process, three of a container's."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []


def prepare(lab: Lab, host: Host) -> None:
    """The host's disk: made once, kept over its reboots."""
    for folder in (host.data, host.log, host.etc, host.folder / "etc-work"):
        folder.mkdir(parents=True, exist_ok=True)
    names = "".join(f"{h.address} {h.name}\n" for h in lab.hosts)
    (host.etc / "hosts").write_text(f"127.0.0.1 localhost\n{lab.gateway} {REGISTRY_NAME}\n{names}")
    (host.etc / "hostname").write_text(host.name + "\n")
    (host.etc / "resolv.conf").write_text("# a lab host knows no resolver of the outside world\n")


def boot(lab: Lab, host: Host) -> None:
    """Makes the namespaces and connects them. Nothing is started in them yet."""
    groups = cgroups.make(lab.name, host.name)
    v1 = " ".join(option for option, _ in cgroups.hierarchies() if option)
    enter_groups = "".join(f"echo $$ > '{g}/cgroup.procs'; " for g in groups)
    with (host.log / "init.log").open("ab") as log:
        unshare = subprocess.Popen(
            [
                "sh",
                "-c",
                enter_groups + 'exec unshare -n -m -u -i -C -p --fork sh "$0"',
                str(INIT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**ENVIRONMENT, "HOST_DIR": str(host.folder), "HOST_NAME": host.name, "HIERARCHIES": v1},
            cwd="/",
            start_new_session=True,
        )
    assert unshare.stdout is not None
    if unshare.stdout.readline() != b"ready\n":
        unshare.wait()
        reason = (host.log / "init.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise PyswarmError(f"{host.name} does not boot: {' '.join(reason)}")
    pid = int(Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()[0])
    remember(host.folder / "init.pid", pid)
    switch.plug(lab, host, pid)


def enter(lab: Lab, host: Host, command: Sequence[str], *, workdir: str = "") -> list[str]:
    """The command line that runs `command` inside the host: all its namespaces, and its cgroups."""
    pid = first_process(host)
    if pid is None:
        raise PreconditionFailed(f"{host.name} is not running; start it with 'pyswarm lab start {host.name}'")
    enter_groups = "".join(
        f"echo $$ > '{_group_to_enter(lab, host, option, point)}/cgroup.procs'; "
        for option, point in cgroups.hierarchies()
    )
    chdir = [f"--wdns={workdir}"] if workdir else []
    return ["sh", "-c", enter_groups + 'exec "$@"', "lab", "nsenter", "-t", str(pid), "-a", *chdir, "--", *command]


def _group_to_enter(lab: Lab, host: Host, option: str, point: Path) -> Path:
    group = cgroups.group(point, lab.name, host.name)
    return group if option else group / cgroups.LEAF


def start_daemon(lab: Lab, host: Host, daemon: str, command: Sequence[str]) -> None:
    """Starts it as a child of the host's first process, with its output in the host's log folder."""
    with (host.log / f"{daemon}.log").open("ab") as log:
        # The pid comes back over stdout; the daemon itself writes to the log alone.
        done = subprocess.run(
            enter(lab, host, ["sh", "-c", 'setsid "$@" </dev/null >&2 & echo $!', "lab", *command]),
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            text=True,
        )
    if done.returncode != 0:
        raise PyswarmError(f"{daemon} does not start on {host.name}; see {host.log / daemon}.log")
    remember(host.folder / f"{daemon}.pid", _outer_pid(lab, host, int(done.stdout)))


def _outer_pid(lab: Lab, host: Host, inner: int) -> int:
    for pid in cgroups.pids(lab.name, host.name):
        if _pids_of(pid)[1:] == [str(inner)]:
            return pid
    raise PyswarmError(f"a process of {host.name} ended as soon as it was started; see {host.log}")


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def gone(pid: int) -> bool:
    return _start_time(pid) is None


def power_off(lab: Lab, host: Host) -> None:
    """SIGKILL to the first process: the kernel ends all others and drops network, mounts and containers."""
    pid = first_process(host)
    if pid is not None:
        send(pid, signal.SIGKILL)
    wait_until(lambda: not cgroups.pids(lab.name, host.name), 20, f"{host.name}'s processes did not end")
    for path in host.folder.glob("*.pid"):
        path.unlink()
    subprocess.run(["ip", "link", "del", host.link], capture_output=True)
    cgroups.remove(lab.name, host.name)


def freeze(lab: Lab, host: Host, number: signal.Signals) -> None:
    """SIGSTOP or SIGCONT to every process of the host."""
    for pid in cgroups.pids(lab.name, host.name):
        send(pid, number)


def erase(host: Host) -> None:
    shutil.rmtree(host.folder, ignore_errors=True)
