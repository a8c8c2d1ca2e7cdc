"""`pyswarm`: the root of the command line, and the one place where errors become exit codes and sentences."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from pyswarm_cli.lazy import Lazy, LazyGroup

OBJECTS = {
    "service": Lazy("pyswarm_cli.commands.service:service", "Deploy, change and watch services"),
    "node": Lazy("pyswarm_cli.commands.node:node", "List and change hosts"),
    "network": Lazy("pyswarm_cli.commands.network:network", "Make, list and remove networks"),
    "image": Lazy("pyswarm_cli.commands.image:image", "Build and push images"),
    "registry": Lazy("pyswarm_cli.commands.registry:registry", "Log in to and out of image registries"),
    "context": Lazy("pyswarm_cli.commands.context:context", "Choose which cluster to talk to"),
    "system": Lazy("pyswarm_cli.commands.system:system", "Show the cluster, check this machine"),
    "lab": Lazy("pyswarm_cli.commands.lab:lab", "A whole cluster on this machine, to try things out"),
    "manager": Lazy("pyswarm_cli.commands.manager:manager", "Run the manager daemon"),
    "etcd": Lazy("pyswarm_cli.commands.etcd:etcd", "Run etcd, the store's daemon"),
    "agent": Lazy("pyswarm_cli.commands.agent:agent", "Run the agent daemon"),
    "swarm": Lazy("pyswarm_cli.commands.swarm:swarm", "Make a cluster, join it, leave it"),
    "init": Lazy("pyswarm_cli.commands.swarm:init", "Make this host the first manager of a new cluster"),
    "join": Lazy("pyswarm_cli.commands.swarm:join", "Make this host a node of a cluster"),
    "leave": Lazy("pyswarm_cli.commands.swarm:leave", "Take this host out of its cluster"),
}


class Root(LazyGroup):
    """Runs a command and ends the process: see `exits` for the codes. Nothing gets out of here as a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        sys.exit(self.code(args, prog_name, complete_var, **extra))

    def code(
        self, args: Sequence[str] | None, prog_name: str | None = None, complete_var: str | None = None, **extra: Any
    ) -> int:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except BrokenPipeError:
            # Whoever read our output has gone; point stdout elsewhere, or the interpreter complains at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            from pyswarm_cli.sentences import explain

            sentence, code = explain(error)
            if sentence:
                click.echo(f"pyswarm: {sentence}", err=True)
            if os.environ.get("PYSWARM_DEBUG"):
                import traceback

                traceback.print_exc()
            return code


@click.group(
    cls=Root,
    lazy=OBJECTS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--context", "context_name", envvar="PYSWARM_CONTEXT", metavar="NAME", help="The cluster to talk to.")
@click.version_option(package_name="pyswarm-orchestrator", prog_name="pyswarm", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, context_name: str | None) -> None:
    """Runs containers on many hosts as one machine."""
    ctx.obj = context_name or None
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """The installed command. Leaves without taking the interpreter apart, which would cost a fifth of a short command:
    whatever a command has opened, it has closed by now, and both streams are flushed."""
    assert isinstance(cli, Root)
    code = cli.code(None, "pyswarm")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            code = code or 1
    os._exit(code)
