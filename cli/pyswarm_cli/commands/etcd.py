"""`pyswarm etcd run`."""

from __future__ import annotations

import click

from pyswarm_cli.lazy import LazyGroup


@click.group(cls=LazyGroup)
def etcd() -> None:
    """The store's daemon."""


@etcd.command("run")
def run() -> None:
    """Run etcd in the foreground, in place of this process.

    Its settings are etcd's own variables, as init and join wrote them. One that has no data asks the leading manager
    first, which adds it to the members; one that has lost its data is removed from them and added again.
    """
    from pyswarm_cli.bootstrap import store

    store.run()
