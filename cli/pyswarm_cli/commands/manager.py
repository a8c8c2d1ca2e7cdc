"""`pyswarm manager run`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.commands.daemon import Daemon, run_command
from pyswarm_cli.lazy import LazyGroup


@click.group(cls=LazyGroup)
def manager() -> None:
    """The manager daemon."""


def _own_name(values: dict[str, Any]) -> str:
    """The certificate's common name is the node's id."""
    from pyswarm_core.tls import Identity

    return Identity.load(values.get("tls_dir", "/etc/pyswarm/tls")).subject.common_name


DAEMON = Daemon(
    package="pyswarm_manager",
    prefix="PYSWARM_MANAGER",
    help="Run the manager in the foreground, until SIGTERM. Logs go to stderr.",
    names={"manager_id": "id", "etcd_endpoints": "etcd"},
    filled={"manager_id": _own_name},
    flags={
        "manager_id": "This host's node id; its certificate's common name by default.",
        "advertise": "HOST:PORT where agents, clients and other managers reach this one.",
        "etcd_endpoints": "HOST:PORT of the etcd members.",
        "listen": "HOST:PORT to serve on.",
        "join_listen": "HOST:PORT for hosts with a join token: the port after --listen's; nowhere by default.",
        "tls_dir": "Where ca.pem, cert.pem and key.pem are.",
        "etcd_tls_dir": "The same, for etcd; --tls-dir by default.",
        "member_tls_dir": "The same, of the etcd member on this host, for renewal; none by default.",
        "data_dir": "Where this manager keeps files.",
        "metrics_addr": "HOST:PORT of /metrics and /sd, in plain HTTP.",
        "address_pool": "What networks get their ranges from; the same on all managers.",
        "lease_ttl": "Seconds until a leader that died is replaced.",
        "heartbeat_period": "Between two heartbeats of an agent.",
        "node_down_after": "Without a word for so long, a node is down.",
        "node_grace": "What nodes have to connect to a new leader.",
        "apply_within": "An agent that takes longer to apply endpoints is not waited for.",
        "compact_every": "Between two compactions of etcd.",
        "keep_revisions": "How much history etcd keeps.",
        "log_level": "debug, info, warning or error.",
    },
)
manager.add_command(run_command(DAEMON))
