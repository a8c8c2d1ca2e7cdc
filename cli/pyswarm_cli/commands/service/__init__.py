"""`pyswarm service`: one file for each verb."""

from __future__ import annotations

import click

from pyswarm_cli.lazy import LS_RM, Lazy, LazyGroup

_HERE = "pyswarm_cli.commands.service"
VERBS = {
    "deploy": Lazy(f"{_HERE}.deploy:deploy", "Create or update a service, and wait until it has converged"),
    "create": Lazy(f"{_HERE}.create:create", "Create a service"),
    "update": Lazy(f"{_HERE}.update:update", "Change a service"),
    "scale": Lazy(f"{_HERE}.scale:scale", "Set the number of tasks of services"),
    "rollback": Lazy(f"{_HERE}.rollback:rollback", "Go back to a service's previous spec"),
    "watch": Lazy(f"{_HERE}.watch:watch", "Follow a service's latest rollout to its end"),
    "rm": Lazy(f"{_HERE}.rm:rm", "Remove services"),
    "ls": Lazy(f"{_HERE}.ls:ls", "List services"),
    "ps": Lazy(f"{_HERE}.ps:ps", "List the tasks of services"),
    "inspect": Lazy(f"{_HERE}.inspect:inspect", "Show everything about services"),
    "logs": Lazy(f"{_HERE}.logs:logs", "Show what the containers of a service or task print"),
}


@click.group(cls=LazyGroup, lazy=VERBS, aliases=LS_RM)
def service() -> None:
    """Deploy, change and watch services."""
