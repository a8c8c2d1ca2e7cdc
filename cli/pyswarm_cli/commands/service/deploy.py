"""`pyswarm service deploy`: the wanted state, whatever is there now."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.service.shared import (
    ATTEMPTS,
    finish,
    found_before_asking,
    read_files,
    spec_options,
    waiting_options,
)
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.compose.project import ComposeService, Project
from pyswarm_cli.flags import apply as applying
from pyswarm_cli.flags.options import SplittingCommand
from pyswarm_cli.flags.table import DEPLOY
from pyswarm_cli.parse import references
from pyswarm_cli.registry import auths
from pyswarm_core import errors
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import spec_pb2 as spec

DEFAULT_FILE = "compose.yaml"
# Other names that Compose reads: not read here, but worth a hint.
OTHER_FILES = ("compose.yml", "docker-compose.yaml", "docker-compose.yml")
REMOVAL_WAIT = 300.0  # seconds for a former service of the same name to be gone


@click.command("deploy", cls=SplittingCommand)
@click.argument("name")
@click.argument("image", required=False)
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="A Compose file; ./compose.yaml if it is there.")
@click.option("--with-registry-auth", is_flag=True, help="Send the credentials to the nodes that pull.")
@waiting_options
@spec_options(DEPLOY)
@with_cluster
@click.pass_context
def deploy(
    ctx: click.Context,
    cluster: Cluster,
    name: str,
    image: str | None,
    file: str | None,
    with_registry_auth: bool,
    detach: bool,
    quiet: bool,
    flags: dict[str, Any],
) -> None:
    """Create or update the service NAME and wait until it has converged.

    With IMAGE, the running service is changed to it, or a new one made. Without, the service NAME of the Compose file
    is what is wanted; without a file that has it, the running service. Flags replace their fields. After -- come the
    arguments of the container's command.
    """
    with found_before_asking():
        applying.check_name(name)
        applying.check_flags(flags, DEPLOY)
        if image is not None:
            references.check(image)
    plan = Plan(name, image, _from_file(name, image, file), read_files(flags), ctx.meta["after_dashes"])
    for warning in plan.file.warnings if isinstance(plan.file, ComposeService) else ():
        click.echo(f"warning: {warning}", err=True)
    answer = _change(cluster, plan, with_registry_auth)
    click.echo(name)
    finish(cluster, answer, detach=detach, quiet=quiet)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked for. `file`: the service of a Compose file, or why there is none to use."""

    name: str
    image: str | None
    file: ComposeService | str
    flags: dict[str, Any]
    args: list[str] | None

    def wanted(self, running: spec.ServiceSpec | None) -> spec.ServiceSpec:
        """The whole new spec. Raises NotFound when there is nothing to start from."""
        if isinstance(self.file, ComposeService):
            base = applying.copy(self.file.spec)
            if running is not None:
                base.task.force = running.task.force
        elif running is not None:
            base = running
        elif self.image is not None:
            base = applying.new_spec(self.name)
        else:
            raise errors.NotFound(
                f"there is no service {self.name} to start from: {self.file}; to make one from an image, write "
                f"'pyswarm service deploy {self.name} IMAGE'"
            )
        if self.image is not None:
            base = applying.with_image(base, self.image)
        if self.args is not None:
            base = applying.with_args(base, self.args)
        return applying.apply(base, self.flags, DEPLOY)

    @property
    def resolves(self) -> bool:
        """The tag is to be looked up anew."""
        return self.image is not None or isinstance(self.file, ComposeService)


def _from_file(name: str, image: str | None, file: str | None) -> ComposeService | str:
    """IMAGE alone never looks at ./compose.yaml."""
    if file is None:
        if image is not None:
            return "an image is given"
        if not Path(DEFAULT_FILE).exists():
            other = next((other for other in OTHER_FILES if Path(other).exists()), None)
            hint = f" ({other} is, and would be read with -f {other})" if other else ""
            return f"it does not run, and there is no {DEFAULT_FILE} here{hint}"
    project = Project.load(Path(file or DEFAULT_FILE), dict(os.environ))
    if name not in project.names:
        return f"it does not run, and {project.path} has {', '.join(project.names) or 'no services at all'}"
    return project.service(name)


def _change(cluster: Cluster, plan: Plan, with_auth: bool) -> control.ServiceResponse:
    """Made anew, from what is stored then, when somebody else was faster or the answer was lost: it says what is
    wanted, so doing it twice does no harm."""
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        view = _running(cluster, plan.name)
        wanted = plan.wanted(view.service.spec if view else None)
        if isinstance(plan.file, ComposeService):
            _networks(cluster, plan.file)
        auth = auths.for_image(wanted.task.container.image) if with_auth else None
        try:
            if view is None:
                return cluster.change(
                    lambda stub: stub.CreateService, control.CreateServiceRequest(spec=wanted, auth=auth)
                )
            request = control.UpdateServiceRequest(
                ref=view.service.id,
                version=view.service.version,
                spec=wanted,
                auth=auth,
                resolve_image=plan.resolves,
            )
            return cluster.change(lambda stub: stub.UpdateService, request)
        except (errors.Conflict, errors.OutcomeUnknown):
            if not attempts:
                raise


def _running(cluster: Cluster, name: str) -> control.ServiceView | None:
    """The service of exactly this name (or id): a prefix is for commands that never create. One that is being removed
    is waited for."""
    until = time.monotonic() + REMOVAL_WAIT
    while True:
        view = _find(cluster, name)
        if view is None or not view.service.removing:
            return view
        if time.monotonic() > until:
            raise errors.PreconditionFailed(
                f"the former service {name} is still being removed; see 'pyswarm service ps {name}', and try again"
            )
        time.sleep(0.3)


def _find(cluster: Cluster, name: str) -> control.ServiceView | None:
    try:
        view = cluster.read(lambda stub: stub.GetService, control.Ref(ref=name))
    except (errors.NotFound, errors.PreconditionFailed):  # not there; or only as the prefix of several ids
        return None
    return view if name in (view.service.spec.name, view.service.id) else None


def _networks(cluster: Cluster, service: ComposeService) -> None:
    """Makes the networks that the file declares as its own and that are not there yet."""
    if not service.networks:
        return
    answer = cluster.read(lambda stub: stub.ListNetworks, control.ListRequest())
    there = {network.spec.name for network in answer.networks}
    for network in service.networks:
        if network.name not in there:
            try:
                cluster.change(lambda stub: stub.CreateNetwork, control.CreateNetworkRequest(spec=network))
            except errors.AlreadyExists:
                continue
            click.echo(f"network {network.name} made", err=True)
