"""How lab hosts become a cluster: by `pyswarm init` and `pyswarm join` on them, as on any other host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core import contexts
from pyswarm_core.errors import PyswarmError

# Of root on the host. It is on the host's own disk, for /root is the machine's.
CONFIG = "/var/lib/pyswarm/root"
# The interpreter that runs this, so that a lab needs no installed command.
PYSWARM = (sys.executable, "-m", "pyswarm_cli")
WITHIN = 60.0  # seconds


def config_of(host: Host) -> Path:
    """CONFIG, from outside of the host."""
    return host.data / "root"


def init(lab: Lab, host: Host) -> contexts.Context:
    """Returns what lets root on the host use the cluster."""
    _run(lab, host, ["init", *_place(host)])
    return contexts.load("default", root=str(config_of(host)))


def join(lab: Lab, host: Host, token: str, manager: str) -> None:
    """`manager`: HOST:PORT."""
    _run(lab, host, ["join", *_place(host), manager], PYSWARM_JOIN_TOKEN=token)


def _place(host: Host) -> list[str]:
    # A Prometheus on another host, or on the machine, is to reach their metrics.
    return ["--advertise-addr", host.address, "--metrics-host", "0.0.0.0"]


def _run(lab: Lab, host: Host, words: list[str], **environment: str) -> None:
    done = subprocess.run(
        hosts.enter(lab, host, [*PYSWARM, *words]),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**hosts.ENVIRONMENT, "PYSWARM_CONFIG_DIR": CONFIG, **environment},
        cwd="/",
        timeout=WITHIN,
    )
    with (host.log / "membership.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode != 0:
        raise PyswarmError(f"'pyswarm {words[0]}' failed on {host.name}: {done.stderr.strip() or done.stdout.strip()}")
