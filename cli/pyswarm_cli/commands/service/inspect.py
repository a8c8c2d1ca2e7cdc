"""`pyswarm service inspect`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.each import for_each
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.output import services as output
from pyswarm_cli.output.options import Listing, listing_options, select, show_inspected
from pyswarm_core.v1 import control_pb2 as control


@click.command("inspect")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE…")
@listing_options(*output.FILTERS, inspect=True)
@with_cluster
def inspect(cluster: Cluster, services: tuple[str, ...], listing: Listing) -> None:
    """Show the spec, the endpoint and the last rollout of services, as a JSON array."""
    views = for_each(services, lambda ref: cluster.read(lambda stub: stub.GetService, control.Ref(ref=ref)))
    networks = cluster.read(lambda stub: stub.ListNetworks, control.ListRequest())
    names = {network.id: network.spec.name for network in networks.networks}
    found = select(views, listing, output.matches)
    show_inspected(listing, [output.details(view, names) for view in found])
