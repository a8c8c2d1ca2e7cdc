"""`pyswarm node ls`, `inspect` and `ps`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.each import for_each
from pyswarm_cli.commands.service.ps import show_tasks
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.output import nodes as output
from pyswarm_cli.output import tasks
from pyswarm_cli.output.options import Listing, listing_options, select, show, show_inspected
from pyswarm_core.v1 import control_pb2 as control


@click.command("ls")
@listing_options(*output.FILTERS)
@with_cluster
def ls(cluster: Cluster, listing: Listing) -> None:
    """List nodes."""
    answer = cluster.read(lambda stub: stub.ListNodes, control.ListRequest())
    ordered = sorted(answer.nodes, key=lambda node: (node.description.hostname, node.id))
    found = select(ordered, listing, output.matches)
    show(
        listing,
        output.HEADERS,
        lambda: [output.row(node, listing.no_trunc) for node in found],
        lambda: [output.summary(node) for node in found],
        lambda: [node.id for node in found],
    )


@click.command("inspect")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
@listing_options(*output.FILTERS, inspect=True)
@with_cluster
def inspect(cluster: Cluster, nodes: tuple[str, ...], listing: Listing) -> None:
    """Show everything about nodes, as a JSON array. `self` is the node of the manager that answers."""
    found = for_each(nodes, lambda ref: cluster.read(lambda stub: stub.GetNode, control.Ref(ref=ref)))
    show_inspected(listing, [output.details(node) for node in select(found, listing, output.matches)])


@click.command("ps")
@click.argument("nodes", nargs=-1, metavar="[NODE…]")
@listing_options(*tasks.FILTERS)
@with_cluster
def ps(cluster: Cluster, nodes: tuple[str, ...], listing: Listing) -> None:
    """List the tasks on nodes; without any, on that of the manager that answers."""
    requests = [control.ListTasksRequest(node=node, history=True) for node in nodes or ("self",)]
    show_tasks(cluster, requests, listing)
