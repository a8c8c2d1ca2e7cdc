"""`pyswarm registry`: credentials of image registries."""

from __future__ import annotations

import sys

import click

from pyswarm_cli.lazy import LazyGroup
from pyswarm_cli.parse.references import check_registry
from pyswarm_cli.registry import auths
from pyswarm_core import contexts
from pyswarm_core.errors import InvalidInput


@click.group(cls=LazyGroup)
def registry() -> None:
    """Log in to and out of image registries.

    Credentials are kept in your configuration directory, readable by you alone, and are sent to a cluster only with
    --with-registry-auth, and there only to nodes that pull.
    """


@registry.command("login")
@click.argument("host")
@click.option("-u", "--username", metavar="USER", help="Your name there.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.pass_obj
def login(context_name: str | None, host: str, username: str | None, password_stdin: bool) -> None:
    """Keep the credentials for HOST[:PORT], after the registry has accepted them."""
    from pyswarm_cli.registry.check import accepts

    try:
        check_registry(host)
    except InvalidInput as error:
        raise click.UsageError(str(error)) from None
    if password_stdin:
        if username is None:
            raise click.UsageError("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    else:
        if not sys.stdin.isatty():
            raise click.UsageError("stdin is no terminal to ask for the password on; use --password-stdin")
        username = username or click.prompt("Username", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    if not username or ":" in username or not password:
        raise click.UsageError("the user's name or the password is empty, or the name contains a colon")
    known = contexts.resolve(context_name)[1] if context_name or contexts.current() else None
    accepts(
        host,
        username,
        password,
        hosts=known.hosts if known else {},
        ca=known.registry_ca.get(host, "") if known else "",
    )
    auths.save(host, username, password)
    click.echo("Login Succeeded")


@registry.command("logout")
@click.argument("host")
def logout(host: str) -> None:
    """Forget the credentials for HOST[:PORT]."""
    auths.remove(host)
    click.echo(f"Removed the credentials for {host}")
