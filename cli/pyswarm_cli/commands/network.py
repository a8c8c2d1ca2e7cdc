"""`pyswarm network`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.each import for_each
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags.options import Parsed
from pyswarm_cli.lazy import LS_RM, LazyGroup
from pyswarm_cli.output.messages import to_dict
from pyswarm_cli.output.options import Listing, label_matches, listing_options, select, show, show_inspected
from pyswarm_cli.output.tables import short_id
from pyswarm_cli.parse import pairs
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

FILTERS = ("id", "name", "label")


@click.group(cls=LazyGroup, aliases=LS_RM)
def network() -> None:
    """Make, list and remove networks."""


def subnet(text: str) -> str:
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError as error:
        hint = "it has bits set beyond its length" if "host bits" in str(error) else "write 10.20.0.0/24"
        raise InvalidInput(f"'{text}' is not an IPv4 range; {hint}") from None
    return str(found)


def name(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?", text):
        raise InvalidInput(f"'{text}' cannot be a network's name: at most 63 letters, digits, '-' and '_'")
    return text


@network.command("create")
@click.argument("name", type=Parsed("name", name))
@click.option("--subnet", "subnet_", type=Parsed("cidr", subnet), metavar="CIDR", help="Its range; else one is picked.")
@click.option("--label", multiple=True, type=Parsed("label", pairs.label), metavar="KEY=VALUE", help="A label.")
@with_cluster
def create(cluster: Cluster, name: str, subnet_: str | None, label: tuple[tuple[str, str], ...]) -> None:
    """Make a network. Services reach each other within it only."""
    wanted = spec.NetworkSpec(name=name, subnet=subnet_ or "", labels=dict(label))
    made = cluster.change(lambda stub: stub.CreateNetwork, control.CreateNetworkRequest(spec=wanted))
    click.echo(made.id)


@network.command("ls")
@listing_options(*FILTERS)
@with_cluster
def ls(cluster: Cluster, listing: Listing) -> None:
    """List networks."""
    answer = cluster.read(lambda stub: stub.ListNetworks, control.ListRequest())
    found = select(sorted(answer.networks, key=lambda n: n.spec.name), listing, matches)
    show(
        listing,
        ("ID", "NAME", "SUBNET", "VNI"),
        lambda: [(short_id(n.id, listing.no_trunc), n.spec.name, n.spec.subnet, str(n.vni)) for n in found],
        lambda: [details(n) for n in found],
        lambda: [n.id for n in found],
    )


@network.command("inspect")
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK…")
@listing_options(*FILTERS, inspect=True)
@with_cluster
def inspect(cluster: Cluster, networks: tuple[str, ...], listing: Listing) -> None:
    """Show everything about networks, as a JSON array."""
    found = for_each(networks, lambda ref: cluster.read(lambda stub: stub.GetNetwork, control.Ref(ref=ref)))
    show_inspected(listing, [details(n) for n in select(found, listing, matches)])


@network.command("rm")
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK…")
@with_cluster
def rm(cluster: Cluster, networks: tuple[str, ...]) -> None:
    """Remove networks that no service is attached to."""

    def remove(ref: str) -> None:
        cluster.change(lambda stub: stub.RemoveNetwork, control.Ref(ref=ref))
        click.echo(ref)

    for_each(networks, remove)


def details(found: pb.Network) -> dict[str, Any]:
    whole = to_dict(found)
    return {
        "id": found.id,
        "name": found.spec.name,
        "subnet": found.spec.subnet,
        "labels": dict(sorted(found.spec.labels.items())),
        **{key: value for key, value in whole.items() if key not in ("id", "spec")},
    }


def matches(key: str, found: pb.Network, wanted: str) -> bool:
    if key == "id":
        return found.id.startswith(wanted)
    if key == "name":
        return found.spec.name.startswith(wanted)
    return label_matches(found.spec.labels, wanted)
