"""`pyswarm node`."""

from __future__ import annotations

import click

from pyswarm_cli.lazy import LS_RM, Lazy, LazyGroup

_HERE = "pyswarm_cli.commands.node"
VERBS = {
    "ls": Lazy(f"{_HERE}.show:ls", "List nodes"),
    "inspect": Lazy(f"{_HERE}.show:inspect", "Show everything about nodes"),
    "ps": Lazy(f"{_HERE}.show:ps", "List the tasks on nodes"),
    "update": Lazy(f"{_HERE}.change:update", "Change a node's availability, labels and role"),
    "rm": Lazy(f"{_HERE}.change:rm", "Remove nodes that are down from the cluster"),
    "promote": Lazy(f"{_HERE}.change:promote", "Make nodes managers"),
    "demote": Lazy(f"{_HERE}.change:demote", "Make managers workers"),
}


@click.group(cls=LazyGroup, lazy=VERBS, aliases=LS_RM)
def node() -> None:
    """List and change hosts."""
