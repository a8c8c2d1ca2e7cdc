"""`pyswarm node update`, `rm`, `promote` and `demote`."""

from __future__ import annotations

from collections.abc import Callable

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
@click.option(
    "--role", type=Parsed("role", ROLES), metavar="worker|manager", help="As promote and demote do, but does not wait."
)
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
    """Change a node's availability, labels and role."""
    if availability is None and role is None and not label_add and not label_rm:
        raise click.UsageError("nothing to change; give --availability, --label-add, --label-rm or --role")
    store(cluster, node, lambda stored: changed(stored, availability, role, dict(label_add), label_rm))
    click.echo(node)


def store(cluster: Cluster, ref: str, change: Callable[[pb.Node], spec.NodeSpec]) -> pb.Node:
    """Returns it as it is stored. `change`: from the node as it is to the spec that is wanted. Conflict: others change
    it all the time."""
    for attempt in range(ATTEMPTS):
        stored = cluster.read(lambda stub: stub.GetNode, control.Ref(ref=ref))
        request = control.UpdateNodeRequest(ref=stored.id, version=stored.version, spec=change(stored))
        try:
            return cluster.change(lambda stub: stub.UpdateNode, request)
        except errors.Conflict:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


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
    if role is not None:
        wanted.role = role
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


_DETACH = click.option("-d", "--detach", is_flag=True, help="Do not wait until the host has carried it out.")


@click.command("promote")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
@_DETACH
@with_cluster
def promote(cluster: Cluster, nodes: tuple[str, ...], detach: bool) -> None:
    """Make nodes managers, one after the other.

    Each host gets a manager's certificates, and starts etcd and a manager. Have 1, 3 or 5 managers.
    """
    from pyswarm_cli.commands.node import roles

    for_each(nodes, lambda ref: roles.change(cluster, ref, spec.NODE_ROLE_MANAGER, detach=detach))


@click.command("demote")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE…")
@_DETACH
@with_cluster
def demote(cluster: Cluster, nodes: tuple[str, ...], detach: bool) -> None:
    """Make managers workers, one after the other.

    Its part in etcd ends, then its manager and etcd are stopped and their files removed; its containers stay. Refused
    for the last manager, and where etcd would lose its majority.
    """
    from pyswarm_cli.commands.node import roles

    for_each(nodes, lambda ref: roles.change(cluster, ref, spec.NODE_ROLE_WORKER, detach=detach))
