"""`pyswarm service rollback`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import finish, waiting_options
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags.options import SwarmCommand
from pyswarm_core.v1 import control_pb2 as control


@click.command("rollback", cls=SwarmCommand)
@click.argument("service")
@waiting_options
@with_cluster
def rollback(cluster: Cluster, service: str, detach: bool, quiet: bool) -> None:
    """Go back to a service's previous spec."""
    answer = cluster.change(lambda stub: stub.RollbackService, control.Ref(ref=service))
    click.echo(service)
    finish(cluster, answer, detach=detach, quiet=quiet)
