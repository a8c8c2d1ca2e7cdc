"""`pyswarm service scale`."""

from __future__ import annotations

import sys

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import found_before_asking, waiting_options, warn
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags.options import SwarmCommand
from pyswarm_cli.parse.numbers import replicas
from pyswarm_cli.progress.follow import follow
from pyswarm_cli.progress.screen import screen_for
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import control_pb2 as control


@click.command("scale", cls=SwarmCommand)
@click.argument("targets", nargs=-1, required=True, metavar="SERVICE=REPLICAS…")
@waiting_options
@with_cluster
def scale(cluster: Cluster, targets: tuple[str, ...], detach: bool, quiet: bool) -> None:
    """Set the number of tasks of replicated services: all of them, or none."""
    with found_before_asking():
        wanted = [parse(text) for text in targets]
        twice = [ref for ref, _ in wanted if sum(ref == other for other, _ in wanted) > 1]
        if twice:
            raise InvalidInput(f"service {twice[0]} is given twice")
    request = control.ScaleServicesRequest(
        targets=[control.ScaleServicesRequest.Target(ref=ref, replicas=count) for ref, count in wanted]
    )
    answer = cluster.change(lambda stub: stub.ScaleServices, request)
    for ref, count in wanted:
        click.echo(f"{ref} scaled to {count}")
    code = exits.CONVERGED
    for one in answer.services:
        warn(one)
        if not detach and one.rollout.id:
            ended = follow(cluster, one.rollout, screen_for(sys.stderr, quiet))
            code = code or ended
    if code != exits.CONVERGED:
        raise exits.Ended(code)


def parse(text: str) -> tuple[str, int]:
    ref, equals, count = text.rpartition("=")
    if not equals or not ref:
        raise InvalidInput(f"'{text}' is not SERVICE=REPLICAS")
    return ref, replicas(count)
