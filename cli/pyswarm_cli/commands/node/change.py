"""`pyswarm node update`, `rm`, `promote` and `demote`."""

from __future__ import annotations

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.each import for_each
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags.options import Parsed
from pyswarm_cli.flags.scalars import choice
from pyswarm_cli.parse import pairs
from pyswarm_core import errors
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

AVAILABILITIES = choice(
    active=spec.NODE_AVAILABILITY_ACTIVE, pause=spec.NODE_AVAILABILITY_PAUSE, drain=spec.NODE_AVAILABILITY_DRAIN
)
ROLES = choice(worker=spec.NODE_ROLE_WORKER, manager=spec.NODE_ROLE_MANAGER)
ATTEMPTS = 10  # how often a change is made anew because somebody else changed the node meanwhile


@click.command("update")
@click.argument("node")
@click.option(
    "--availability",
    type=Parsed("availability", AVAILABILITIES),
    metavar="active|pause|drain",
    help="pause: no new tasks; drain: its tasks move away.",
)
@click.option("--role", type=Parsed("role", ROLES), metavar="worker|manager", help="Not in this version.")
@click.option("--label-add", multiple=True, type=Parsed("label", pairs.label), metavar="KEY=VALUE", help="Set a label.")
@click.option("--label-rm", multiple=True, metavar="KEY", help="Remove a label.")
@with_cluster
def update(
    cluster: Cluster,
    node: str,
    availability: spec.NodeAvailability.ValueType | None,
    role: spec.NodeRole.ValueType | None,
    label_add: tuple[tuple[str, str], ...],
    label_rm: tuple[str, ...],
) -> None:
    """Change a node's availability and labels."""
    if availability is None and role is None and not label_add and not label_rm:
        raise click.UsageError("nothing to change; give --availability, --label-add, --label-rm or --role")
    for attempt in range(ATTEMPTS):
        stored = cluster.read(lambda stub: stub.GetNode, control.Ref(ref=node))
        wanted = changed(stored, availability, role, dict(label_add), label_rm)
        request = control.UpdateNodeRequest(ref=stored.id, version=stored.version, spec=wanted)
        try:
            cluster.change(lambda stub: stub.UpdateNode, request)
            break
        except errors.Conflict:
            if attempt == ATTEMPTS - 1:
                raise
    click.echo(node)


def changed(
    node: pb.Node,
    availability: spec.NodeAvailability.ValueType | None,
    role: spec.NodeRole.ValueType | None,
    add: dict[str, str],
    remove: tuple[str, ...],
) -> spec.NodeSpec:
    """Pure."""
    wanted = spec.NodeSpec()
    wanted.CopyFrom(node.spec)
    if availability is not None:
        wanted.availability = availability
    if role is not None and role != node.spec.role:
        raise errors.PreconditionFailed(
            "a node's role cannot be changed in this version: it is that of the certificate it was given"
        )
    for key in remove:
        wanted.labels.pop(key, None)
    wanted.labels.update(add)
    return wanted


@click.command("rm")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
@click.option("--force", is_flag=True, help="Also one that is not down: its tasks are stopped.")
@with_cluster
def rm(cluster: Cluster, nodes: tuple[str, ...], force: bool) -> None:
    """Remove nodes from the cluster."""

    def remove(ref: str) -> None:
        cluster.change(lambda stub: stub.RemoveNode, control.RemoveNodeRequest(ref=ref, force=force))
        click.echo(ref)

    for_each(nodes, remove)


def _not_yet(name: str) -> click.Command:
    @click.command(name)
    @click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
    def command(nodes: tuple[str, ...]) -> None:
        """Not in this version."""
        raise errors.PreconditionFailed(
            f"'pyswarm node {name}' is not in this version: a node's role is that of the certificate it was given"
        )

    return command


promote = _not_yet("promote")
demote = _not_yet("demote")
