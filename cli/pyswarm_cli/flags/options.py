"""The table of flags, declared to click."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from pyswarm_cli.flags.model import Flag
from pyswarm_core.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(click.ParamType[Any]):
    """A value read by one of our parsers: what it refuses is a usage error, found before the cluster is asked."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


def options_of(table: Sequence[Flag]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for flag in reversed(table):
            command = _option(flag)(command)
        return command

    return decorate


def _option(flag: Flag) -> Callable[[F], F]:
    short = [f"-{flag.short}"] if flag.short else []
    if flag.parse is None:
        # `--no-healthcheck` is itself the negative: --no-healthcheck=false is its opposite (see `switches`)
        negative = f"/--{flag.name}-off" if flag.name.startswith("no-") else f"/--no-{flag.name}"
        names = [f"--{flag.name}{negative}", *short]
        return click.option(*names, flag.key, default=None, help=flag.help)
    kind = Parsed(flag.metavar.lower(), flag.parse)
    return click.option(
        *short, f"--{flag.name}", flag.key, type=kind, metavar=flag.metavar, multiple=flag.repeated, help=flag.help
    )


def given(values: dict[str, Any], table: Iterable[Flag]) -> dict[str, Any]:
    """Of click's values, those that the user gave: a flag's key → its value."""
    result: dict[str, Any] = {}
    for flag in table:
        value = values.get(flag.key)
        if value is None or (flag.repeated and not value):
            continue
        result[flag.key] = [v for many in value for v in many] if flag.split else value
    return result


def refusing(instead: dict[str, str]) -> Callable[[F], F]:
    """Hidden options that only say which ones to use."""

    def decorate(command: F) -> F:
        for name, use in instead.items():
            command = _refused(name, use)(command)
        return command

    return decorate


def _refused(name: str, use: str) -> Callable[[F], F]:
    def refuse(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"--{name} would replace the whole list; on update use {use}", ctx)

    return click.option(f"--{name}", multiple=True, hidden=True, expose_value=False, callback=refuse)


class SwarmCommand(click.Command):
    """Reads what Swarm's fingers write and click does not: `--detach=false`, and `-- ARG…` apart from the positional
    arguments, for a command that `splits`: it finds them in ctx.meta["after_dashes"] (None without `--`)."""

    splits = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        after: list[str] | None = None
        if self.splits and "--" in args:
            at = args.index("--")
            args, after = args[:at], args[at + 1 :]
        ctx.meta["after_dashes"] = after
        switches = {
            name: (option, option.secondary_opts)
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        return super().parse_args(ctx, [_switch(arg, switches) for arg in args])


class SplittingCommand(SwarmCommand):
    splits = True


def _switch(arg: str, switches: dict[str, tuple[click.Option, list[str]]]) -> str:
    """--detach=false → --no-detach, --init=true → --init."""
    name, equals, value = arg.partition("=")
    if not equals or name not in switches:
        return arg
    _, negative = switches[name]
    lowered = value.lower()
    if lowered in ("true", "1", "t"):
        return name
    if lowered in ("false", "0", "f") and negative:
        return negative[0]
    raise click.UsageError(f"{name} is a switch: it takes true or false, not '{value}'")
