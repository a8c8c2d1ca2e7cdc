"""`pyswarm image`: build, push and list images on this machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from pyswarm_cli.flags.options import Parsed
from pyswarm_cli.lazy import LS_RM, LazyGroup
from pyswarm_cli.output.options import Listing, listing_options, select, show
from pyswarm_cli.output.times import ago, rfc3339
from pyswarm_cli.parse import references
from pyswarm_core import contexts
from pyswarm_core.contexts import Context
from pyswarm_core.errors import PyswarmError

REFERENCE = Parsed("ref", references.full)


@click.group(cls=LazyGroup, aliases=LS_RM)
def image() -> None:
    """Build and push images.

    Images are built into a storage of pyswarm's own, /var/lib/pyswarm/build or PYSWARM_BUILD_ROOT; a cluster gets them
    from the registry that they are pushed to. In a lab's context, registry.lab:5000 is the lab's.
    """


@image.command("build")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("-t", "--tag", "tags", multiple=True, required=True, type=REFERENCE, metavar="REF", help="Its name.")
@click.option("-f", "--file", type=click.Path(), metavar="FILE", help="The Dockerfile; DIR/Dockerfile by default.")
@click.option("--build-arg", "build_args", multiple=True, metavar="KEY=VALUE", help="A value for an ARG.")
@click.option("--target", metavar="STAGE", help="Stop after this stage.")
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
@click.option("--pull", is_flag=True, help="Look for newer base images.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_obj
def build(
    context_name: str | None,
    folder: str,
    tags: tuple[str, ...],
    file: str | None,
    build_args: tuple[str, ...],
    target: str | None,
    no_cache: bool,
    pull: bool,
    quiet: bool,
) -> None:
    """Build an image from the Dockerfile in DIR. Prints its id."""
    from pyswarm_cli.images.workshop import open_workshop, stream

    dockerfile = _dockerfile(folder, file)
    options = [f"--tag={tag}" for tag in tags] + [f"--build-arg={arg}" for arg in build_args]
    options += [f"--target={target}"] if target else []
    options += ["--no-cache"] if no_cache else []
    options += ["--pull-always"] if pull else []
    last: list[str] = []

    def heard(line: str) -> None:
        last[:] = [*last[-4:], line] if line.strip() else last
        if not quiet:
            click.echo(line, err=True)

    with open_workshop(_context(context_name)) as workshop, tempfile.NamedTemporaryFile(prefix="pyswarm-id-") as found:
        command = workshop.command(
            "build",
            *("--format", "docker"),  # the OCI format has no place for HEALTHCHECK
            *("--isolation", "chroot", "--layers", "--iidfile", found.name, *workshop.registry_options()),
            *options,
            *("-f", str(dockerfile), folder),
        )
        if stream(command, workshop.environment, heard) != 0:
            why = next((line for line in reversed(last) if "rror" in line), last[-1] if last else "no reason given")
            raise PyswarmError(f"the build of {tags[0]} failed: {' '.join(why.removeprefix('Error: ').split())}")
        click.echo(Path(found.name).read_text().strip().removeprefix("sha256:"))


@image.command("push")
@click.argument("ref", type=REFERENCE)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_obj
def push(context_name: str | None, ref: str, quiet: bool) -> None:
    """Send an image to its registry. Layers that are there are not sent again. Prints the image with its digest."""
    from pyswarm_cli.images.push import PushReport, short
    from pyswarm_cli.images.workshop import open_workshop, stream

    report = PushReport()

    def heard(line: str) -> None:
        told = report.hear(line)
        if told and not quiet:
            click.echo(told, err=True)

    with (
        open_workshop(_context(context_name)) as workshop,
        tempfile.NamedTemporaryFile(prefix="pyswarm-digest-") as found,
    ):
        command = workshop.command(
            "push",
            *workshop.registry_options(),
            *("--digestfile", found.name, ref, f"docker://{ref}"),
            options=("--log-level", "debug"),
        )
        if stream(command, workshop.environment, heard) != 0:
            why = report.why()
            if "image not known" in why or "not found locally" in why:
                raise PyswarmError(f"there is no image {ref} here; build it with 'pyswarm image build -t {ref} DIR'")
            raise PyswarmError(f"{ref} was not pushed: {why}")
        digest = Path(found.name).read_text().strip()
    if not quiet:
        for layer in report.sent:
            click.echo(f"layer {short(layer)}: sent", err=True)
        click.echo(f"{ref}: {report.summary()}", err=True)
    click.echo(f"{ref.partition('@')[0]}@{digest}")


@image.command("ls")
@listing_options("reference")
@click.pass_obj
def ls(context_name: str | None, listing: Listing) -> None:
    """List the images that were built here."""
    import subprocess
    import time

    from pyswarm_cli.images.workshop import open_workshop

    with open_workshop(_context(context_name)) as workshop:
        done = subprocess.run(
            workshop.command("images", "--json", "--no-trunc"), env=workshop.environment, capture_output=True, text=True
        )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise PyswarmError(f"the images cannot be listed: {why}")
    found = select(rows(json.loads(done.stdout or "[]") or []), listing, lambda _, row, want: want in row["reference"])
    now = time.time()
    show(
        listing,
        ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"),
        lambda: [
            (
                references.familiar(row["repository"]),
                row["tag"],
                row["id"] if listing.no_trunc else row["id"][:12],
                ago(row["created"], now),
                row["size"],
            )
            for row in found
        ],
        lambda: [
            {**{k: v for k, v in row.items() if k != "created"}, "created_at": rfc3339(row["created"])} for row in found
        ],
        lambda: list(dict.fromkeys(row["id"] for row in found)),
    )


def rows(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each name of each image. Pure."""
    result = []
    for entry in images:
        for name in entry.get("names") or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            result.append(
                {
                    "id": str(entry["id"]).removeprefix("sha256:"),
                    "reference": name,
                    "repository": repository,
                    "tag": tag,
                    "digest": entry.get("digest", ""),
                    "size": entry.get("size", ""),
                    "created": float(entry.get("created", 0)),
                }
            )
    return sorted(result, key=lambda row: (row["repository"], -row["created"], row["tag"]))


def _context(name: str | None) -> Context | None:
    """The one in use, if any: an image can be built without a cluster."""
    return contexts.resolve(name)[1] if name or contexts.current() else None


def _dockerfile(folder: str, file: str | None) -> Path:
    if not Path(folder).is_dir():
        raise PyswarmError(f"there is no folder {folder} to build from")
    if file is not None:
        if not Path(file).is_file():
            raise PyswarmError(f"there is no file {file} to build from")
        return Path(file)
    for name in ("Dockerfile", "Containerfile"):
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise PyswarmError(f"there is no Dockerfile in {folder}; name another file with -f")
