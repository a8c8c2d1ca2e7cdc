"""The one table of flags, as each command has it. Order is the order of application and of --help."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_cli.flags.lists import LISTS
from pyswarm_cli.flags.model import Flag, Options
from pyswarm_cli.flags.policies import POLICIES
from pyswarm_cli.flags.probes import PROBES
from pyswarm_cli.flags.scalars import CAPS, LOG_OPT, SCALARS, Service
from pyswarm_cli.parse import pairs, processes


def _env_file(service: Service, files: Sequence[Sequence[str]], _: Options) -> None:
    """The value is the entries of each file: `files.read` puts them there."""
    service.task.container.env[:] = pairs.merge_env(*files)


def _env(service: Service, values: Sequence[str | None], options: Options) -> None:
    """On top of --env-file when both are given, else in place of what was there."""
    base = list(service.task.container.env) if "env_file" in options else []
    service.task.container.env[:] = pairs.merge_env(base, [value for value in values if value is not None])


def _args(service: Service, value: list[str], _: Options) -> None:
    service.task.container.args[:] = value


def _force(service: Service, value: bool, _: Options) -> None:
    if value:
        service.task.force += 1


ENV_FILE = Flag("env-file", "A file of KEY=VALUE lines.", _env_file, str, "FILE", repeated=True)
_REPLACING = tuple(entry.replacing() for entry in LISTS if entry.name != "env")
_ENV = next(entry for entry in LISTS if entry.name == "env")
ENV = Flag(_ENV.name, _ENV.help, _env, _ENV.parse, _ENV.metavar, "e", repeated=True)

ARGS = Flag("args", "The command's arguments, split as a shell does.", _args, processes.words, "ARGS")
FORCE = Flag("force", "Replace the tasks though nothing else changes.", _force, None)

DEPLOY: tuple[Flag, ...] = (*SCALARS, ENV_FILE, ENV, *_REPLACING, *CAPS, LOG_OPT, *PROBES, *POLICIES)
# Removals come before additions: `--publish-rm 80 --publish-add 8080:80` moves a port.
_PAIRS = tuple(entry.removing() for entry in LISTS) + tuple(entry.adding() for entry in LISTS)
UPDATE: tuple[Flag, ...] = (*SCALARS, ARGS, FORCE, *_PAIRS, *CAPS, LOG_OPT, *PROBES, *POLICIES)
# What `update` refuses, and the flags to use instead.
INSTEAD: dict[str, str] = {
    **{entry.name: f"--{entry.name}-add and --{entry.name}-rm" for entry in LISTS},
    "env-file": "--env-add",
}
