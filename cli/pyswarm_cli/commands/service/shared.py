"""What `deploy`, `create`, `update`, `scale` and `rollback` share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.flags import files, options
from pyswarm_cli.flags.model import Flag
from pyswarm_cli.progress.follow import follow
from pyswarm_cli.progress.screen import screen_for
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import control_pb2 as control

F = TypeVar("F", bound=Callable[..., Any])
ATTEMPTS = 10  # how often a change is made anew because somebody else changed the service meanwhile


def waiting_options(command: F) -> F:
    """-d and -q."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
        click.option("-d/-D", "--detach/--no-detach", default=False, help="Do not wait until it has converged."),
    ):
        command = option(command)
    return command


def spec_options(table: Sequence[Flag]) -> Callable[[F], F]:
    """The table's flags; the command gets one `flags` argument: key → value of those given, files not read yet."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            values = {flag.key: kwargs.pop(flag.key, None) for flag in table}
            return command(*args, flags=options.given(values, table), **kwargs)

        return options.options_of(table)(wrapped)  # type: ignore[return-value]

    return decorate


def read_files(flags: dict[str, Any]) -> dict[str, Any]:
    return files.read(flags, dict(os.environ))


@contextmanager
def found_before_asking() -> Iterator[None]:
    """What is wrong with the flags themselves ends the command with 125."""
    try:
        yield
    except InvalidInput as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


def finish(cluster: Cluster, answer: control.ServiceResponse, *, detach: bool, quiet: bool) -> None:
    """Warns, waits, and ends the command with the rollout's code."""
    warn(answer)
    if detach or not answer.rollout.id:
        return
    code = follow(cluster, answer.rollout, screen_for(sys.stderr, quiet))
    if code != exits.CONVERGED:
        raise exits.Ended(code)


def warn(answer: control.ServiceResponse) -> None:
    for warning in answer.warnings:
        click.echo(f"warning: {warning}", err=True)
