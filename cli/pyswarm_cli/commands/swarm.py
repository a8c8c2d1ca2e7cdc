"""`init`, `join`, `leave` and `swarm`: names that fingers know, for which this version has no answer yet."""

from __future__ import annotations

import click

from pyswarm_core.errors import PyswarmError

_ANY = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


def _absent(name: str) -> click.Command:
    @click.command(name, context_settings=_ANY)
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    def command(args: tuple[str, ...]) -> None:
        """Not in this version."""
        raise PyswarmError(
            f"'pyswarm {name}' is not in this version; start a cluster on this machine with 'pyswarm lab up', or run "
            "'pyswarm manager run' and 'pyswarm agent run' with certificates of your own"
        )

    return command


init = _absent("init")
join = _absent("join")
leave = _absent("leave")
swarm = _absent("swarm")
