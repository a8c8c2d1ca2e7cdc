"""`pyswarm system`: the cluster in a few lines, and whether this machine can be part of one."""

from __future__ import annotations

import json
from typing import Any

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.lazy import LazyGroup
from pyswarm_core.v1 import control_pb2 as control


@click.group(cls=LazyGroup)
def system() -> None:
    """Show the cluster, check this machine."""


@system.command("info")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@with_cluster
def info(cluster: Cluster, format_: str) -> None:
    """Show who leads and how much there is."""
    answer = cluster.read(lambda stub: stub.GetInfo, control.Empty())
    found: dict[str, Any] = {
        "context": cluster.name,
        "version": answer.version,
        "manager_id": answer.manager_id,
        "leader_address": answer.leader_address,
        "nodes": answer.nodes,
        "services": answer.services,
        "tasks": answer.tasks,
        "revision": answer.revision,
    }
    if format_ == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        click.echo(f"{key.replace('_', ' ')}: {value}")


@system.command("check")
@click.option("--role", type=click.Choice(["agent", "manager", "builder"]), default="agent", show_default=True)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def check(role: str, format_: str) -> None:
    """Find out whether this machine can be an agent or a manager, or build images; each fault says what to do.

    Exits with 0 when it can, also with warnings, and with 1 when something has to be done first.
    """
    from pyswarm_cli.system.checks import run

    results = run(role)
    if format_ == "json":
        found = [{"check": r.name, "ok": r.ok, "warning": r.warns and not r.ok, "detail": r.detail} for r in results]
        click.echo(json.dumps(found, indent=2))
    else:
        for result in results:
            mark = "ok  " if result.ok else "warn" if result.warns else "FAIL"
            click.echo(f"{mark} {result.name}: {result.detail}")
    failed = [result for result in results if not result.ok and not result.warns]
    if failed:
        raise exits.Ended(exits.ERROR, f"{len(failed)} of {len(results)} checks failed; the lines above say what to do")


@system.command("units")
@click.option("--check", "pretend", is_flag=True, help="Only name those that differ.")
def units(pretend: bool) -> None:
    """Write this host's systemd units anew, as this version of pyswarm has them; print the names of those that changed.

    For upgrades. Nothing is restarted.
    """
    from pyswarm_cli.bootstrap import host
    from pyswarm_core.errors import PreconditionFailed
    from pyswarm_core.membership import daemons, member

    host.refuse_all_but_root("pyswarm system units")
    found = member.load()
    if found is None:
        raise PreconditionFailed("this host is in no cluster, so it has no units; 'pyswarm init' or 'join' make them")
    for name in daemons.refresh_units(found, pretend=pretend):
        click.echo(name)
