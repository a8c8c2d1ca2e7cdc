"""Groups whose commands may be imported when they are used: `pyswarm --help` pays for click alone.

A lazy command is declared by where it is ("module:attribute") and one line of help, so that listing imports nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

# The two pairs of names that are the same in every object's group.
LS_RM = {"list": "ls", "remove": "rm"}


class Lazy(NamedTuple):
    target: str  # "pyswarm_cli.commands.service.ls:ls"
    help: str
    hidden: bool = False


class LazyGroup(click.Group):
    """`aliases` maps another name of a command to its own: list → ls."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, Lazy] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("no_args_is_help", False)
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self.aliases.get(cmd_name, cmd_name)
        if name in self.lazy:
            module, _, attribute = self.lazy[name].target.partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, name)

    def helps(self) -> dict[str, str]:
        """What is shown: each command's name and its line of help."""
        shown = {name: entry.help for name, entry in self.lazy.items() if not entry.hidden}
        return shown | {name: command.get_short_help_str(90) for name, command in self.commands.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.helps().items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            raise click.UsageError(f"a command is missing: one of {', '.join(self.helps())}", ctx)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            resolved, command, rest = super().resolve_command(ctx, args)
            return self.aliases.get(resolved or "", resolved), command, rest
        raise click.UsageError(self._unknown(name), ctx)

    def _unknown(self, name: str) -> str:
        from difflib import get_close_matches

        known = self.helps()
        aliases = [alias for alias, of in self.aliases.items() if of in known]
        close = get_close_matches(name, [*known, *aliases], n=2)
        if close:
            return f"there is no command '{name}'; did you mean {' or '.join(close)}?"
        return f"there is no command '{name}'; there are: {', '.join(known)}"
