"""`pyswarm service ps`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.output import tasks
from pyswarm_cli.output.options import Listing, listing_options, select, show
from pyswarm_core.v1 import control_pb2 as control


@click.command("ps")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE…")
@listing_options(*tasks.FILTERS)
@with_cluster
def ps(cluster: Cluster, services: tuple[str, ...], listing: Listing) -> None:
    """List the tasks of services, with the ones that were there before."""
    show_tasks(cluster, [control.ListTasksRequest(services=services, history=True)], listing)


def show_tasks(cluster: Cluster, requests: Sequence[control.ListTasksRequest], listing: Listing) -> None:
    answers = [cluster.read(lambda stub: stub.ListTasks, request) for request in requests]
    hosts = {key: name for answer in answers for key, name in tasks.hostnames(answer.nodes).items()}
    everything = {task.id: task for answer in answers for task in answer.tasks}
    found = select(
        tasks.ordered(everything.values()),
        listing,
        lambda key, task, value: tasks.matches(key, task, hosts, value),
    )
    show(
        listing,
        tasks.HEADERS,
        lambda: tasks.rows(found, hosts, time.time(), listing.no_trunc),
        lambda: [tasks.to_object(task, hosts) for task in found],
        lambda: [task.id for task in found],
    )
