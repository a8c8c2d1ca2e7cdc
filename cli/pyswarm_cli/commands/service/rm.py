"""`pyswarm service rm`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.each import for_each
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_core.v1 import control_pb2 as control


@click.command("rm")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE…")
@with_cluster
def rm(cluster: Cluster, services: tuple[str, ...]) -> None:
    """Remove services. Their tasks take no new connection from now on, and stop once the open ones have ended."""

    def remove(ref: str) -> None:
        cluster.change(lambda stub: stub.RemoveService, control.Ref(ref=ref))
        click.echo(ref)

    for_each(services, remove)
