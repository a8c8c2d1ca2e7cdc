"""`pyswarm agent run`."""

from __future__ import annotations

import click

from pyswarm_cli.commands.daemon import Daemon, run_command
from pyswarm_cli.lazy import LazyGroup


@click.group(cls=LazyGroup)
def agent() -> None:
    """The agent daemon."""


DAEMON = Daemon(
    package="pyswarm_agent",
    prefix="PYSWARM_AGENT",
    help="Run the agent in the foreground, until SIGTERM. Needs root. Logs go to stderr.",
    needs_root=True,
    flags={
        "managers": "HOST:PORT of the managers.",
        "address": "This host's address for the other hosts.",
        "hostname": "This host's name; its own by default.",
        "role": "worker or manager; used when the node registers for the first time.",
        "tls_dir": "Where ca.pem, cert.pem and key.pem are.",
        "record": "Where init and join wrote down this host's membership.",
        "data_dir": "Where images, tasks and volumes are kept.",
        "run_dir": "Where sockets and namespaces are.",
        "labels": "A label of this node; used when it registers for the first time.",
        "metrics_addr": "HOST:PORT of /metrics, in plain HTTP.",
        "runtime": "The OCI runtime; crun or runc by default.",
        "log_level": "debug, info, warning or error.",
    },
)
agent.add_command(run_command(DAEMON))
