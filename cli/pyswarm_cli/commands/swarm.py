"""`pyswarm swarm`: make a cluster, join it, leave it. `init`, `join` and `leave` are short for three of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.lazy import LazyGroup

if TYPE_CHECKING:
    from pyswarm_cli.bootstrap import steps

_ADVERTISE = click.option(
    "--advertise-addr", "advertised", default="", metavar="ADDRESS", help="This host's IPv4 address for other hosts."
)
_SKIP = click.option("--skip-check", is_flag=True, help="Do not check this host first.")
_DATA = click.option(
    "--data-dir",
    default="/var/lib/pyswarm",
    show_default=True,
    metavar="PATH",
    help="Where images, volumes and state are kept, for good.",
)
_METRICS = click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where metrics are to be had, in plain HTTP: 0.0.0.0 for a Prometheus elsewhere.",
)
CONTEXT = "default"  # root's, on a manager


@click.command("init")
@_ADVERTISE
@_DATA
@click.option(
    "--default-addr-pool",
    "address_pool",
    default="",
    metavar="CIDR",
    help="What networks get their ranges from: a private range that hosts do not use.  [default: 10.128.0.0/10]",
)
@_METRICS
@_SKIP
def init(advertised: str, data_dir: str, address_pool: str, metrics_host: str, skip_check: bool) -> None:
    """Make this host the first manager of a new cluster."""
    from pyswarm_cli.bootstrap import steps
    from pyswarm_manager.allocator.networks import parse_pool

    if address_pool:
        parse_pool(address_pool)
    place = _place("init", "manager", advertised, data_dir, metrics_host, skip_check)
    made = steps.init(place, address_pool=address_pool)
    click.echo(f"Cluster made: this host is the manager {made.member.node_id}.")
    _started(made.commands)
    click.echo(f"\nTo add a worker, run there:\n\n    {steps.join_line(made.worker_token, made.member.address)}\n")
    click.echo("To add a manager, run 'pyswarm swarm join-token manager' here and follow what it says.")


@click.command("join")
@click.argument("manager", metavar="HOST[:PORT]")
@click.option(
    "--token",
    required=True,
    envvar="PYSWARM_JOIN_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    help="From 'pyswarm swarm join-token' on a manager.",
)
@_ADVERTISE
@_DATA
@_METRICS
@_SKIP
def join(manager: str, token: str, advertised: str, data_dir: str, metrics_host: str, skip_check: bool) -> None:
    """Make this host a node of the cluster that the manager at HOST:PORT is of.

    The token says whether as a worker or as a manager. It is sent only to a manager that has proven to be of the
    token's cluster.
    """
    from pyswarm_cli.bootstrap import enroll, steps
    from pyswarm_core.enrolment import JoinToken

    parsed = JoinToken.parse(token)
    enroll.join_address(manager)
    made = steps.join(parsed, manager, _place("join", "agent", advertised, data_dir, metrics_host, skip_check))
    click.echo(f"This host joined the cluster as the {made.member.role} {made.member.node_id}.")
    _started(made.commands)


@click.command("leave")
@click.option("--force", is_flag=True, help="Also when no manager agrees, or the cluster suffers by it.")
def leave(force: bool) -> None:
    """Take this host out of its cluster.

    Its tasks move elsewhere first; a manager's part in etcd ends. Then the daemons are stopped, and everything of them
    is removed: containers, images, network, certificates, settings. Volumes stay.
    """
    from pyswarm_cli.bootstrap import host, steps

    host.refuse_all_but_root("pyswarm leave")
    steps.leave(CONTEXT, force=force, say=click.echo)


@click.command("join-token")
@click.argument("role", type=click.Choice(["worker", "manager"]))
@click.option("--rotate", is_flag=True, help="Make a new one; the former is refused from then on.")
@click.option("-q", "--quiet", is_flag=True, help="Print the token alone.")
@with_cluster
def join_token(cluster: Cluster, role: str, rotate: bool, quiet: bool) -> None:
    """Show how a host joins as a worker or as a manager."""
    from pyswarm_cli.bootstrap import steps

    tokens = steps.tokens(cluster, role if rotate else "")
    token = getattr(tokens, role)
    if quiet:
        click.echo(token)
        return
    if rotate:
        click.echo(f"The {role}s' token was replaced; the former is refused from now on.\n")
    click.echo(f"To add a {role}, run there:\n\n    pyswarm join --token {token} {tokens.address}\n")


@click.group("swarm", cls=LazyGroup)
def swarm() -> None:
    """Make a cluster, join it, leave it."""


for _command in (init, join, leave, join_token):
    swarm.add_command(_command)


def _place(verb: str, role: str, advertised: str, data_dir: str, metrics_host: str, skip_check: bool) -> steps.Place:
    """This host's, once it is sure that it may become a member. InvalidInput, PreconditionFailed: it may not."""
    from pyswarm_cli.bootstrap import host, steps
    from pyswarm_core.membership import member

    member.check_data_dir(data_dir)
    metrics_host = member.check_metrics_host(metrics_host)
    host.refuse_all_but_root(f"pyswarm {verb}")
    member.refuse_members()
    if not skip_check:
        _check(role)
    return steps.Place(host.own_address(advertised), socket.gethostname(), CONTEXT, data_dir, metrics_host)


def _check(role: str) -> None:
    """Raises PreconditionFailed with the first finding; warnings are told on stderr."""
    from pyswarm_cli.system import checks
    from pyswarm_core.errors import PreconditionFailed

    found = [r for each in dict.fromkeys(("agent", role)) for r in checks.run(each)]
    # A daemon that runs on a host of no cluster was left behind, or is of a lab.
    results = [r for r in found if not r.ok or r.is_running]
    for result in dict.fromkeys(r for r in results if r.warns):
        click.echo(f"warning: {result.name}: {result.detail}", err=True)
    faults = list(dict.fromkeys(r for r in results if not r.warns))
    for result in faults[1:]:
        click.echo(f"FAIL {result.name}: {result.detail}", err=True)
    if faults:
        raise PreconditionFailed(
            f"this host is not fit yet: {faults[0].name}: {faults[0].detail} (nothing was changed; 'pyswarm system "
            f"check --role {role}' shows all, --skip-check goes on regardless)"
        )


def _started(commands: list[str]) -> None:
    if not commands:
        click.echo("Its daemons were started by systemd; 'journalctl -u pyswarm-agent' shows what they say.")
        return
    click.echo("systemd is not the first process here: start the daemons yourself, in this order:\n")
    for command in commands:
        click.echo(f"    {command}")
