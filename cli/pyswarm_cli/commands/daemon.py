"""`manager run` and `agent run`: a flag and an environment variable for each field of a daemon's Settings.

The flags are derived from the dataclass, so that a new setting can be set at once; a row of help is all it needs here.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pyswarm_cli.flags.options import Parsed
from pyswarm_cli.parse import durations, pairs
from pyswarm_core.errors import InvalidInput, PreconditionFailed


@dataclasses.dataclass(frozen=True, slots=True)
class Daemon:
    """`names`: of the flags that are not called like their field. `filled`: how a field without a default is made from
    the others when it is not given."""

    package: str  # pyswarm_manager: it has `settings` and `app`
    prefix: str  # of the environment variables: PYSWARM_MANAGER
    help: str
    flags: Mapping[str, str]  # field → help
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    filled: Mapping[str, Callable[[dict[str, Any]], Any]] = dataclasses.field(default_factory=dict)
    needs_root: bool = False


def run_command(daemon: Daemon) -> click.Command:
    """The `run` command, made from the daemon's Settings."""
    settings = importlib.import_module(f"{daemon.package}.settings").Settings
    hints = typing.get_type_hints(settings)
    fields = [field for field in dataclasses.fields(settings) if field.init]

    def run(**given: Any) -> None:
        if daemon.needs_root and os.geteuid() != 0:
            raise PreconditionFailed("the agent makes namespaces, mounts and rules, so it needs root; try with sudo")
        values = {key: value for key, value in given.items() if value not in (None, (), {})}
        for name, fill in daemon.filled.items():
            if name not in values:
                values[name] = fill(values)
        try:
            made = settings(**values)
        except InvalidInput as error:
            raise click.UsageError(str(error), click.get_current_context()) from None
        code = importlib.import_module(f"{daemon.package}.app").run(made)
        click.get_current_context().exit(code or 0)

    return click.Command(
        "run", callback=run, help=daemon.help, params=[_option(field, hints[field.name], daemon) for field in fields]
    )


def _option(field: dataclasses.Field[Any], hint: Any, daemon: Daemon) -> click.Option:
    name = daemon.names.get(field.name, field.name.replace("_", "-"))
    has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    shown = field.default if field.default not in (dataclasses.MISSING, None, "", ()) else None
    text = daemon.flags.get(field.name, "")
    arguments: dict[str, Any] = {
        "envvar": f"{daemon.prefix}_{name.replace('-', '_').upper()}",
        "show_envvar": True,
        "required": not has_default and field.name not in daemon.filled,
        "help": f"{text}  [default: {shown}]" if shown is not None and not isinstance(shown, bool) else text,
    }
    kind = _plain(hint)
    if kind is bool:
        return click.Option([f"--{name}/--no-{name}", field.name], default=None, **arguments)
    if typing.get_origin(kind) in (dict, Mapping) or kind in (dict, Mapping):
        return click.Option(
            [f"--{name.removesuffix('s')}", field.name],
            type=Parsed("label", pairs.label),
            multiple=True,
            metavar="KEY=VALUE",
            callback=lambda _ctx, _param, value: dict(value) or None,
            **arguments,
        )
    parse, metavar = _NAMED.get(field.name) or _PARSERS.get(typing.get_origin(kind) or kind, (str, "TEXT"))
    return click.Option([f"--{name}", field.name], type=Parsed(metavar.lower(), parse), metavar=metavar, **arguments)


def _plain(hint: Any) -> Any:
    """Path | None → Path."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _names(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise InvalidInput("at least one is needed; several are separated by commas")
    return found


def _whole(text: str) -> int:
    if not text.strip().lstrip("-").isdigit():
        raise InvalidInput(f"'{text}' is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    """5s, 1m30s; a bare number is seconds, too: settings say so."""
    try:
        return float(text)
    except ValueError:
        return durations.duration(text)


def _level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise InvalidInput(f"'{text}' is no level of logging; there are {', '.join(LEVELS)}")
    return text.lower()


LEVELS = ("debug", "info", "warning", "error")
_NAMED: dict[str, tuple[Callable[[str], Any], str]] = {"log_level": (_level, "LEVEL")}
_PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "TEXT"),
    int: (_whole, "N"),
    float: (_seconds, "TIME"),
    Path: (Path, "PATH"),
    tuple: (_names, "A,B…"),
}
