"""The daemons of a lab host: the same commands as on any other host, and how to tell that they answer.

Their metrics are open to the lab's network, so that a Prometheus on one of its hosts or on the machine can scrape them.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import (
    AGENT_METRICS_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    MANAGER_METRICS_PORT,
    MANAGER_PORT,
    Host,
    Lab,
)
from pyswarm_core.errors import InvalidInput, PyswarmError
from pyswarm_core.tls import STORE_NAME

TLS = "/etc/pyswarm/tls"
STOP_SECONDS = 15
# The interpreter that runs this, so that a lab needs no installed command.
PYSWARM = (sys.executable, "-m", "pyswarm_cli")


def command(lab: Lab, host: Host, daemon: str) -> list[str]:
    etcd = ",".join(f"https://{h.address}:{ETCD_PORT}" for h in lab.managers)
    if daemon == "etcd":
        return _etcd(lab, host)
    if daemon == "manager":
        return [
            *PYSWARM,
            *("manager", "run", "--id", host.node_id, "--advertise", f"{host.address}:{MANAGER_PORT}"),
            *("--etcd", etcd, "--tls-dir", TLS, "--metrics-addr", f"0.0.0.0:{MANAGER_METRICS_PORT}"),
        ]
    return [
        *PYSWARM,
        *("agent", "run", "--managers", ",".join(lab.manager_addresses), "--tls-dir", TLS),
        *("--address", host.address, "--hostname", host.name, "--role", "manager" if host.is_manager else "worker"),
        *("--metrics-addr", f"0.0.0.0:{AGENT_METRICS_PORT}"),
    ]


def _etcd(lab: Lab, host: Host) -> list[str]:
    mine, tls = f"https://{host.address}", "/etc/pyswarm/etcd-tls"
    return [
        *("etcd", "--name", host.name, "--data-dir", "/var/lib/pyswarm/etcd", "--logger", "zap"),
        "--enable-grpc-gateway=false",
        *("--listen-client-urls", f"{mine}:{ETCD_PORT}", "--advertise-client-urls", f"{mine}:{ETCD_PORT}"),
        *(
            "--listen-peer-urls",
            f"{mine}:{ETCD_PEER_PORT}",
            "--initial-advertise-peer-urls",
            f"{mine}:{ETCD_PEER_PORT}",
        ),
        *("--initial-cluster", ",".join(f"{h.name}=https://{h.address}:{ETCD_PEER_PORT}" for h in lab.managers)),
        *("--initial-cluster-token", f"pyswarm-{lab.name}"),
        *("--client-cert-auth", "--trusted-ca-file", f"{tls}/ca.pem"),
        *("--client-cert-allowed-hostname", STORE_NAME, "--peer-cert-allowed-hostname", STORE_NAME),
        *("--cert-file", f"{tls}/cert.pem", "--key-file", f"{tls}/key.pem"),
        *("--peer-client-cert-auth", "--peer-trusted-ca-file", f"{tls}/ca.pem"),
        *("--peer-cert-file", f"{tls}/cert.pem", "--peer-key-file", f"{tls}/key.pem"),
    ]


def check_name(host: Host, daemon: str) -> None:
    if daemon not in host.daemons:
        raise InvalidInput(f"{host.name} has no daemon '{daemon}'; it has {', '.join(host.daemons)}")


def start(lab: Lab, host: Host, daemon: str) -> None:
    """Nothing happens when it runs already."""
    if hosts.daemon_process(host, daemon) is None:
        hosts.start_daemon(lab, host, daemon, command(lab, host, daemon))


def stop(lab: Lab, host: Host, daemon: str) -> None:
    pid = hosts.daemon_process(host, daemon)
    if pid is None:
        return
    hosts.send(pid, signal.SIGTERM)
    hosts.send(pid, signal.SIGCONT)
    hosts.wait_until(lambda: hosts.gone(pid), STOP_SECONDS, f"{daemon} on {host.name} did not stop")


def kill(host: Host, daemon: str) -> None:
    pid = hosts.daemon_process(host, daemon)
    if pid is not None:
        hosts.send(pid, signal.SIGKILL)
        hosts.wait_until(lambda: hosts.gone(pid), STOP_SECONDS, f"{daemon} on {host.name} did not die")


def answers(lab: Lab, host: Host, daemon: str) -> bool:
    if daemon == "agent":
        # its port is on the host's own loopback
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{AGENT_METRICS_PORT}"
        inside = hosts.enter(lab, host, ["bash", "-c", probe])
        return subprocess.run(inside, capture_output=True).returncode == 0
    try:
        with socket.create_connection((host.address, ETCD_PORT if daemon == "etcd" else MANAGER_PORT), 0.5):
            return True
    except OSError:
        return False


def wait(lab: Lab, host: Host, daemon: str, seconds: float = 20) -> None:
    def ready() -> bool:
        if hosts.daemon_process(host, daemon) is None:
            raise_dead(host, daemon)
        return answers(lab, host, daemon)

    hosts.wait_until(ready, seconds, f"{daemon} on {host.name} did not answer")


def raise_dead(host: Host, daemon: str) -> None:
    log: Path = host.log / f"{daemon}.log"
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise PyswarmError(f"{daemon} on {host.name} ended: {' '.join(last)} (the whole is in {log})")
