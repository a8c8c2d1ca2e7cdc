"""`pyswarm service ls`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.output import services
from pyswarm_cli.output.options import Listing, listing_options, select, show
from pyswarm_core.v1 import control_pb2 as control


@click.command("ls")
@listing_options(*services.FILTERS)
@with_cluster
def ls(cluster: Cluster, listing: Listing) -> None:
    """List services. REPLICAS is how many tasks run, of how many there are to be."""
    answer = cluster.read(lambda stub: stub.ListServices, control.ListRequest())
    views = sorted(answer.services, key=lambda view: view.service.spec.name)
    views = select(views, listing, services.matches)
    show(
        listing,
        services.HEADERS,
        lambda: [services.row(view, listing.no_trunc) for view in views],
        lambda: [services.summary(view) for view in views],
        lambda: [view.service.id for view in views],
    )
