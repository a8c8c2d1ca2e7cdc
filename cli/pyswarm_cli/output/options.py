"""The flags that every `ls`, `ps` and `inspect` has, and what they do to the rows."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pyswarm_cli.output.tables import short_id, table

F = TypeVar("F", bound=Callable[..., Any])
Match = Callable[[str, Any, str], bool]  # key of the filter, row, value wanted


@dataclass(frozen=True, slots=True)
class Listing:
    as_json: bool = False
    quiet: bool = False
    no_trunc: bool = False
    filters: tuple[tuple[str, str], ...] = ()


def listing_options(*filters: str, inspect: bool = False) -> Callable[[F], F]:
    """--format, -q, --no-trunc, -f; the command gets one `listing` argument. `filters`: the keys that -f knows.
    `inspect`: JSON unless --pretty."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(
            *args: Any,
            format_: str,
            quiet: bool,
            no_trunc: bool,
            filter_: tuple[str, ...],
            pretty: bool = False,
            **kw: Any,
        ) -> Any:
            listing = Listing(format_ == "json" and not pretty, quiet, no_trunc, parse_filters(filter_, filters))
            return command(*args, listing=listing, **kw)

        keys = f"; keys: {', '.join(filters)}" if filters else ""
        for option in (
            click.option("-f", "--filter", "filter_", multiple=True, metavar="KEY=VALUE", help=f"Only these{keys}."),
            click.option("--no-trunc", is_flag=True, help="Whole ids and texts."),
            click.option("-q", "--quiet", is_flag=True, help="Ids only."),
            click.option(
                "--format",
                "format_",
                type=click.Choice(["table", "json"]),
                default="json" if inspect else "table",
                show_default=True,
                help="How to show it.",
            ),
        ):
            wrapped = option(wrapped)
        if inspect:
            wrapped = click.option("--pretty", is_flag=True, help="For people, not for scripts.")(wrapped)
        return wrapped  # type: ignore[return-value]

    return decorate


def parse_filters(texts: Sequence[str], known: Sequence[str]) -> tuple[tuple[str, str], ...]:
    result = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"the filter '{text}' is not KEY=VALUE")
        if key not in known:
            raise click.UsageError(f"there is no filter '{key}'; there are: {', '.join(known)}")
        result.append((key, value))
    return tuple(result)


def select(rows: Sequence[Any], listing: Listing, match: Match) -> list[Any]:
    """As in Docker: values of one key are alternatives, different keys must all match."""
    wanted: dict[str, list[str]] = {}
    for key, value in listing.filters:
        wanted.setdefault(key, []).append(value)
    return [row for row in rows if all(any(match(key, row, v) for v in values) for key, values in wanted.items())]


def label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    """KEY, or KEY=VALUE."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def show(
    listing: Listing,
    headers: Sequence[str],
    rows: Callable[[], Sequence[Sequence[str]]],
    objects: Callable[[], Sequence[Mapping[str, Any]]],
    ids: Callable[[], Sequence[str]],
) -> None:
    """Prints what the flags ask for; only that is made. -q wins over --format."""
    if listing.quiet:
        for identifier in ids():
            click.echo(short_id(identifier, listing.no_trunc))
    elif listing.as_json:
        click.echo(json.dumps(list(objects()), indent=2, ensure_ascii=False))
    else:
        click.echo(table(headers, rows()))


def show_inspected(listing: Listing, objects: Sequence[Mapping[str, Any]]) -> None:
    """What `inspect` prints: a JSON array, or each object in lines."""
    from pyswarm_cli.output.pretty import pretty

    if listing.quiet or listing.as_json:
        show(listing, (), list, lambda: objects, lambda: [str(entry["id"]) for entry in objects])
    else:
        click.echo("\n\n".join(pretty(entry) for entry in objects))
