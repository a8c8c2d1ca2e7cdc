"""The daemons of a lab host: started by the commands that `pyswarm init` and `pyswarm join` print, as a lab host has no
systemd; and how to tell that they answer."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
from pathlib import Path

from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core.errors import InvalidInput, PyswarmError
from pyswarm_core.membership.daemons import command
from pyswarm_core.membership.member import AGENT_METRICS_PORT, API_PORT, ETCD_PORT, JOIN_PORT

STOP_SECONDS = 15
_PORTS = {"etcd": (ETCD_PORT,), "manager": (API_PORT, JOIN_PORT)}


def check_name(host: Host, daemon: str) -> None:
    if daemon not in host.daemons:
        raise InvalidInput(f"{host.name} has no daemon '{daemon}'; it has {', '.join(host.daemons) or 'none'}")


def start(lab: Lab, host: Host, daemon: str) -> None:
    """Nothing happens when it runs already."""
    if hosts.daemon_process(lab, host, daemon) is None:
        hosts.start_daemon(lab, host, daemon, shlex.split(command(daemon)))


def stop(lab: Lab, host: Host, daemon: str) -> None:
    pid = hosts.daemon_process(lab, host, daemon)
    if pid is None:
        return
    hosts.send(pid, signal.SIGTERM)
    hosts.send(pid, signal.SIGCONT)
    hosts.wait_until(lambda: hosts.gone(pid), STOP_SECONDS, f"{daemon} on {host.name} did not stop")


def kill(lab: Lab, host: Host, daemon: str) -> None:
    pid = hosts.daemon_process(lab, host, daemon)
    if pid is not None:
        hosts.send(pid, signal.SIGKILL)
        hosts.wait_until(lambda: hosts.gone(pid), STOP_SECONDS, f"{daemon} on {host.name} did not die")


def answers(lab: Lab, host: Host, daemon: str) -> bool:
    if daemon == "agent":
        # Nothing of it listens for others, unless its metrics are open.
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{AGENT_METRICS_PORT}"
        inside = hosts.enter(lab, host, ["bash", "-c", probe])
        return subprocess.run(inside, capture_output=True).returncode == 0
    try:
        for port in _PORTS[daemon]:
            socket.create_connection((host.address, port), 0.5).close()
    except OSError:
        return False
    return True


def wait(lab: Lab, host: Host, daemon: str, seconds: float = 20) -> None:
    def ready() -> bool:
        if hosts.daemon_process(lab, host, daemon) is None:
            raise_dead(host, daemon)
        return answers(lab, host, daemon)

    hosts.wait_until(ready, seconds, f"{daemon} on {host.name} did not answer")


def raise_dead(host: Host, daemon: str) -> None:
    log: Path = host.log / f"{daemon}.log"
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise PyswarmError(f"{daemon} on {host.name} ended: {' '.join(last)} (the whole is in {log})")
