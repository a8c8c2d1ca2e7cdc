"""A base spec and the flags that were given → the wanted spec. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pyswarm_cli.flags.model import Flag, Options
from pyswarm_cli.flags.probes import CHECKS
from pyswarm_cli.parse import references
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

_SERVICE_NAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?")
# Flags whose meaning depends on what is there already, or in files that are not read yet.
_RELATIVE = ("env_file", "health_interval", "health_timeout", "health_retries", "health_start_period")


def new_spec(name: str) -> spec.ServiceSpec:
    return spec.ServiceSpec(name=name, replicas=1)


def check_name(name: str) -> str:
    if not _SERVICE_NAME.fullmatch(name):
        raise InvalidInput(
            f"'{name}' cannot be a service's name: at most 63 letters, digits, '-' and '_', the first and last a "
            "letter or digit"
        )
    return name


def with_image(base: spec.ServiceSpec, image: str) -> spec.ServiceSpec:
    """A new image: what was found out about the old one does not hold for it."""
    changed = copy(base)
    container = changed.task.container
    container.image = references.check(image)
    container.digest = ""
    del container.platforms[:]
    return changed


def with_args(base: spec.ServiceSpec, args: Sequence[str]) -> spec.ServiceSpec:
    changed = copy(base)
    changed.task.container.args[:] = args
    return changed


def apply(base: spec.ServiceSpec, options: Options, table: Sequence[Flag]) -> spec.ServiceSpec:
    """Flags in the table's order. Raises InvalidInput for flags that contradict each other or the spec."""
    _exclusive(options)
    changed = copy(base)
    for flag in table:
        if flag.key in options:
            flag.apply(changed, options[flag.key], options)
    if changed.mode == spec.SERVICE_MODE_GLOBAL and "replicas" in options:
        raise InvalidInput("a global service has one task on each node, so it takes no --replicas")
    if changed.task.exclusive:
        _stop_first(options)
    coherent(changed)
    return changed


def _stop_first(options: Options) -> None:
    for which in ("update", "rollback"):
        if options.get(f"{which}_order") == spec.UPDATE_ORDER_START_FIRST:
            raise InvalidInput(
                f"an exclusive service never has two tasks in a slot, so its {which} cannot be start-first: leave "
                f"--{which}-order out"
            )


def check_flags(options: Options, table: Sequence[Flag]) -> None:
    """What is wrong with the flags whatever they will be applied to: found by applying them to nothing."""
    _exclusive(options)
    alone = {key: value for key, value in options.items() if key not in _RELATIVE and not key.endswith("_rm")}
    apply(with_image(new_spec("trial"), "trial"), alone, table)


def coherent(service: spec.ServiceSpec) -> None:
    """By the manager's own rules, so that what it would refuse is refused before it is asked."""
    from pyswarm_manager.api import check, defaults

    complete = copy(service)
    defaults.complete(complete)
    check.check_service(complete)


def copy(base: spec.ServiceSpec) -> spec.ServiceSpec:
    result = spec.ServiceSpec()
    result.CopyFrom(base)
    return result


def _exclusive(options: Options) -> None:
    checks = [f"--{name.replace('_', '-')}" for name in CHECKS if name in options]
    if len(checks) > 1:
        raise InvalidInput(f"{' and '.join(checks)} exclude each other: a task has one probe")
    if options.get("no_healthcheck"):
        probes = [f"--{name.replace('_', '-')}" for name in options if name.startswith("health_")]
        if probes:
            raise InvalidInput(f"--no-healthcheck and {probes[0]} exclude each other")
