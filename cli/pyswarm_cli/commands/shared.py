"""What commands share: the cluster of the context in use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyswarm_cli.client import Cluster
from pyswarm_core import contexts

F = TypeVar("F", bound=Callable[..., Any])


def with_cluster(command: F) -> F:
    """The command gets `cluster` as its first argument. Nothing is read or dialled before its first call."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        cluster = Cluster(lambda: contexts.resolve(ctx.find_root().obj))
        ctx.call_on_close(cluster.close)
        return command(cluster, *args, **kwargs)

    return wrapped  # type: ignore[return-value]
