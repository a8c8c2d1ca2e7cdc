"""`pyswarm service watch`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import finish
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.v1 import control_pb2 as control


@click.command("watch")
@click.argument("service")
@with_cluster
def watch(cluster: Cluster, service: str) -> None:
    """Follow a service's latest rollout to its end; the exit code is that of the deploy."""
    view = cluster.read(lambda stub: stub.GetService, control.Ref(ref=service))
    if not view.rollout.id:
        raise PreconditionFailed(f"service {service} has no rollout to follow")
    answer = control.ServiceResponse(service=view.service, rollout=view.rollout)
    finish(cluster, answer, detach=False, quiet=False)
