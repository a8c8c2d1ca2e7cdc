"""`pyswarm service update`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import ATTEMPTS, finish, found_before_asking, spec_options, waiting_options
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags import apply as applying
from pyswarm_cli.flags.options import SwarmCommand, refusing
from pyswarm_cli.flags.table import INSTEAD, UPDATE
from pyswarm_cli.parse import references
from pyswarm_cli.registry import auths
from pyswarm_core import errors
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import spec_pb2 as spec


@click.command("update", cls=SwarmCommand)
@click.argument("service")
@click.option("--image", metavar="IMAGE", help="The image to run.")
@click.option("--rollback", is_flag=True, help="Go back to the previous spec, as 'service rollback' does.")
@click.option("--with-registry-auth", is_flag=True, help="Send the credentials to the nodes that pull.")
@waiting_options
@spec_options(UPDATE)
@refusing(INSTEAD)
@with_cluster
def update(
    cluster: Cluster,
    service: str,
    image: str | None,
    rollback: bool,
    with_registry_auth: bool,
    detach: bool,
    quiet: bool,
    flags: dict[str, Any],
) -> None:
    """Change a service. Lists are changed by pairs of flags, --env-add and --env-rm."""
    with found_before_asking():
        applying.check_flags(flags, UPDATE)
        if image is not None:
            references.check(image)
        if rollback and (flags or image is not None):
            raise errors.InvalidInput("--rollback goes back to the previous spec, so it takes no other change")
    if rollback:
        answer = cluster.change(lambda stub: stub.RollbackService, control.Ref(ref=service))
    else:
        answer = _change(cluster, service, image, with_registry_auth, flags)
    click.echo(service)
    finish(cluster, answer, detach=detach, quiet=quiet)


def _change(
    cluster: Cluster, ref: str, image: str | None, with_auth: bool, flags: dict[str, Any]
) -> control.ServiceResponse:
    """Made anew, from what is stored then, when somebody else changed the service meanwhile."""
    for attempt in range(ATTEMPTS):
        view = cluster.read(lambda stub: stub.GetService, control.Ref(ref=ref))
        wanted = changed(view.service.spec, image, _by_id(cluster, flags))
        request = control.UpdateServiceRequest(
            ref=view.service.id,
            version=view.service.version,
            spec=wanted,
            auth=auths.for_image(wanted.task.container.image) if with_auth else None,
            resolve_image=image is not None,
        )
        try:
            return cluster.change(lambda stub: stub.UpdateService, request)
        except errors.Conflict:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def changed(base: spec.ServiceSpec, image: str | None, flags: dict[str, Any]) -> spec.ServiceSpec:
    """Pure."""
    if image is not None:
        base = applying.with_image(base, image)
    return applying.apply(base, flags, UPDATE)


def _by_id(cluster: Cluster, flags: dict[str, Any]) -> dict[str, Any]:
    """A stored spec names its networks by id: those of the flags are looked up, so that -rm and -add find them."""
    if not {"network_rm", "network_add"} & flags.keys():
        return flags
    answer = cluster.read(lambda stub: stub.ListNetworks, control.ListRequest())
    ids = {network.spec.name: network.id for network in answer.networks}
    translated = dict(flags)
    if "network_rm" in flags:
        translated["network_rm"] = [ids.get(name, name) for name in flags["network_rm"]]
    if "network_add" in flags:
        translated["network_add"] = [
            spec.NetworkAttachment(network_id=ids.get(n.network_id, n.network_id), aliases=n.aliases)
            for n in flags["network_add"]
        ]
    return translated
