"""The flags with one value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pyswarm_cli.flags.model import Apply, Flag, Options
from pyswarm_cli.parse import durations, numbers, pairs, processes
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

Service = spec.ServiceSpec


def to(path: str) -> Apply:
    """Sets a field of the service's spec: task.container.user."""
    *parents, last = path.split(".")

    def apply(service: Service, value: Any, _: Options) -> None:
        message: Any = service
        for part in parents:
            message = getattr(message, part)
        setattr(message, last, value)

    return apply


def choice(**values: Any) -> Callable[[str], Any]:
    """One of some words; python names stand for words with dashes: start_first."""
    known = {name.rstrip("_").replace("_", "-"): value for name, value in values.items()}

    def parse(text: str) -> Any:
        word = text.strip().lower()
        if word not in known:
            raise InvalidInput(f"'{text}' is not one of {', '.join(known)}")
        return known[word]

    return parse


def count(what: str, lowest: int, highest: int) -> Callable[[str], int]:
    return lambda text: numbers.whole(text, what, lowest, highest)


def _hostname(text: str) -> str:
    templated = "{{" in text
    if (
        text
        and not templated
        and (len(text) > 63 or not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?", text))
    ):
        raise InvalidInput(f"'{text}' cannot be a host's name: letters, digits, '-' and '.' are allowed")
    return text


def _workdir(text: str) -> str:
    if text and not text.startswith("/"):
        raise InvalidInput(f"the working directory '{text}' must be an absolute path")
    return text


def _user(text: str) -> str:
    if any(c.isspace() for c in text) or text.count(":") > 1:
        raise InvalidInput(f"'{text}' is not a user; write NAME, UID or UID:GID")
    return text


def _mode(service: Service, value: Any, options: Options) -> None:
    service.mode = value
    if value == spec.SERVICE_MODE_GLOBAL:
        service.replicas = 0


def _entrypoint(service: Service, value: list[str], _: Options) -> None:
    service.task.container.entrypoint.Clear()
    service.task.container.entrypoint.SetInParent()
    service.task.container.entrypoint.values.extend(value)


def _log(service: Service, values: list[dict[str, int]], _: Options) -> None:
    for value in values:
        for field, number in value.items():
            setattr(service.task.log, field, number)


MODES = choice(replicated=spec.SERVICE_MODE_REPLICATED, global_=spec.SERVICE_MODE_GLOBAL)
ENDPOINT_MODES = choice(vip=spec.ENDPOINT_MODE_VIP, dnsrr=spec.ENDPOINT_MODE_DNSRR)
RESTART_CONDITIONS = choice(
    any=spec.RESTART_CONDITION_ANY,
    on_failure=spec.RESTART_CONDITION_ON_FAILURE,
    none=spec.RESTART_CONDITION_NONE,
)

SCALARS: tuple[Flag, ...] = (
    Flag("mode", "replicated, or global: one task on each node.", _mode, MODES, "MODE"),
    Flag("replicas", "How many tasks.", to("replicas"), numbers.replicas, "N"),
    Flag("replicas-max-per-node", "At most so many of its tasks on one node; 0: any number.",
         to("task.placement.max_per_node"), count("replicas per node", 0, numbers.MAX_REPLICAS), "N"),
    Flag("endpoint-mode", "vip: one stable address; dnsrr: DNS answers with the tasks' own.", to("endpoint_mode"),
         ENDPOINT_MODES, "MODE"),
    Flag("exclusive", "Never two tasks of a slot at a time, not even when a node is cut off: for a single writer.",
         to("task.exclusive"), None),
    Flag("affinity", "The same client address reaches the same task.", to("affinity"), None),
    Flag("hostname", "The containers' host name.", to("task.container.hostname"), _hostname, "NAME"),
    Flag("reserve-cpu", "CPUs that a node must have free.", to("task.resources.reserve_nano_cpus"), numbers.cpus,
         "CPUS"),
    Flag("reserve-memory", "Memory that a node must have free.", to("task.resources.reserve_memory"),
         numbers.memory, "SIZE"),
    Flag("limit-cpu", "CPUs that a task may use; 0: any.", to("task.resources.limit_nano_cpus"), numbers.cpus,
         "CPUS"),
    Flag("limit-memory", "Memory that a task may use; 0: any.", to("task.resources.limit_memory"), numbers.memory,
         "SIZE"),
    Flag("limit-pids", "Processes that a task may have; 0: any.", to("task.resources.limit_pids"),
         count("the number of processes", 0, 4_194_304), "N"),
    Flag("restart-condition", "any, on-failure or none.", to("task.restart.condition"), RESTART_CONDITIONS, "WHEN"),
    Flag("restart-delay", "Before the first restart; doubles up to 5m.", to("task.restart.delay"),
         durations.duration, "TIME"),
    Flag("restart-max-attempts", "Give up after so many restarts; 0: never.", to("task.restart.max_attempts"),
         count("the number of restarts", 0, 1_000_000), "N"),
    Flag("restart-window", "Count restarts in this time only; 0s: for ever.", to("task.restart.window"),
         durations.duration, "TIME"),
    Flag("drain-timeout", "Wait so long for open connections to end before a task is stopped.",
         to("task.drain_timeout"), durations.duration, "TIME"),
    Flag("stop-grace-period", "Between the stop signal and SIGKILL.", to("task.container.stop_grace"),
         durations.duration, "TIME"),
    Flag("stop-signal", "The signal that asks a container to stop.", to("task.container.stop_signal"),
         processes.stop_signal, "SIGNAL"),
    Flag("user", "The user in the container: NAME or UID[:GID].", to("task.container.user"), _user, "USER", "u"),
    Flag("workdir", "The working directory in the container.", to("task.container.workdir"), _workdir, "DIR", "w"),
    Flag("entrypoint", "Replaces the image's entrypoint.", _entrypoint, processes.words, "COMMAND"),
    Flag("read-only", "The container's root file system is read-only.", to("task.container.read_only"), None),
    Flag("init", "A small init runs the command and reaps its orphans.", to("task.container.init"), None),
    Flag("tty", "The container has a terminal.", to("task.container.tty"), None, short="t"),
)  # fmt: skip

LOG_OPT = Flag("log-opt", "max-size=10m,max-file=3.", _log, pairs.log_options, "KEY=VALUE", repeated=True)


def _cap(field: str, other: str) -> Apply:
    """A capability is in one of the two lists only. Adds to what is there: `update` has no other flag for it."""

    def apply(service: Service, values: list[str], _: Options) -> None:
        container = service.task.container
        getattr(container, field)[:] = list(dict.fromkeys([*getattr(container, field), *values]))
        getattr(container, other)[:] = [cap for cap in getattr(container, other) if cap not in values]

    return apply


CAPS = (
    Flag("cap-add", "Give a capability.", _cap("cap_add", "cap_drop"), processes.capability, "CAPABILITY",
         repeated=True),
    Flag("cap-drop", "Take a capability away.", _cap("cap_drop", "cap_add"), processes.capability, "CAPABILITY",
         repeated=True),
)  # fmt: skip
