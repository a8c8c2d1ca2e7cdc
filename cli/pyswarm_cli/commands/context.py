"""`pyswarm context`: which cluster the command line talks to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from pyswarm_cli.lazy import LS_RM, LazyGroup
from pyswarm_cli.output.options import Listing, listing_options, select, show
from pyswarm_core import contexts, files
from pyswarm_core.errors import InvalidInput


@click.group(cls=LazyGroup, aliases=LS_RM)
def context() -> None:
    """Choose which cluster to talk to.

    A context holds the managers' addresses and this user's certificate. PYSWARM_CONTEXT or --context overrides the
    selected one for a single command.
    """


@context.command("ls")
@listing_options("name")
@click.pass_obj
def ls(context_name: str | None, listing: Listing) -> None:
    """List contexts; * marks the one in use."""
    used = context_name or contexts.current()
    found = select(contexts.names(), listing, lambda _, name, value: value in name)
    loaded = [(name, contexts.load(name)) for name in found]
    show(
        listing,
        ("NAME", "CURRENT", "MANAGERS"),
        lambda: [(n, "*" if n == used else "", ", ".join(c.managers)) for n, c in loaded],
        lambda: [{"name": n, "current": n == used, "managers": list(c.managers)} for n, c in loaded],
        lambda: found,
    )


@context.command("use")
@click.argument("name")
def use(name: str) -> None:
    """Select the context that commands use from now on."""
    contexts.select(name)
    click.echo(name)


@context.command("show")
@click.argument("name", required=False)
@click.pass_obj
def show_(context_name: str | None, name: str | None) -> None:
    """Show a context (the one in use) as JSON, without its private key."""
    chosen, found = contexts.resolve(name or context_name)
    document = contexts.to_document(found)
    del document["key"]
    click.echo(json.dumps({"name": chosen, **document}, indent=2))


@context.command("export")
@click.argument("name")
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
def export(name: str, file: str) -> None:
    """Write a context with its private key to FILE (0600), or to stdout.

    Whoever has that file can do everything to the cluster that you can.
    """
    text = json.dumps({"name": name, **contexts.to_document(contexts.load(name))}, indent=2) + "\n"
    if file == "-":
        click.echo(text, nl=False)
    else:
        files.put(file, text, 0o600)


@context.command("import")
@click.argument("name")
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace a context of that name.")
def import_(name: str, file: str, force: bool) -> None:
    """Read a context that `export` wrote, and keep it as NAME."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    where = "the input" if file == "-" else file
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{where} is not a context: {error}") from None
    if name in contexts.names() and not force:
        raise InvalidInput(f"a context '{name}' is there already; --force replaces it")
    contexts.save(name, contexts.from_document(document, where))
    click.echo(name)


@context.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Forget contexts. The clusters are left alone."""
    for name in names:
        contexts.load(name)
    for name in names:
        contexts.remove(name)
        click.echo(name)
