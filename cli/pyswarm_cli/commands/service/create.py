"""`pyswarm service create`."""

from __future__ import annotations

import secrets
from typing import Any

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import finish, found_before_asking, read_files, spec_options, waiting_options
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags import apply as applying
from pyswarm_cli.flags.options import SwarmCommand
from pyswarm_cli.flags.table import DEPLOY
from pyswarm_cli.parse import references
from pyswarm_cli.registry import auths
from pyswarm_core.v1 import control_pb2 as control


@click.command("create", cls=SwarmCommand, context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("args", nargs=-1, metavar="[ARG…]")
@click.option("--name", help="The service's name; without it one is made from the image's.")
@click.option("--with-registry-auth", is_flag=True, help="Send the credentials to the nodes that pull.")
@waiting_options
@spec_options(DEPLOY)
@with_cluster
def create(
    cluster: Cluster,
    image: str,
    args: tuple[str, ...],
    name: str | None,
    with_registry_auth: bool,
    detach: bool,
    quiet: bool,
    flags: dict[str, Any],
) -> None:
    """Create a service that runs IMAGE with ARGs. Flags come before IMAGE."""
    flags = read_files(flags)
    with found_before_asking():
        chosen = applying.check_name(name if name is not None else made_up(image))
        wanted = applying.with_args(applying.with_image(applying.new_spec(chosen), image), args)
        wanted = applying.apply(wanted, flags, DEPLOY)
    request = control.CreateServiceRequest(spec=wanted)
    if with_registry_auth:
        request.auth.CopyFrom(auths.for_image(image))
    answer = cluster.change(lambda stub: stub.CreateService, request)
    click.echo(answer.service.id)
    finish(cluster, answer, detach=detach, quiet=quiet)


def made_up(image: str) -> str:
    """web-3f9a for registry.lab:5000/team/web:v1."""
    path = references.check(image).partition("@")[0].rpartition("/")[2].partition(":")[0]
    return f"{path.replace('.', '-')[:50]}-{secrets.token_hex(2)}"
