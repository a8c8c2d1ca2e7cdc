"""`deploy`, `healthcheck`, `logging` and `x-pyswarm` of a service. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyswarm_cli.compose.loader import Seq, Value
from pyswarm_cli.compose.reader import Handler, Reader
from pyswarm_cli.flags import policies, probes, scalars
from pyswarm_cli.parse import durations, numbers, pairs, processes
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec


def read(reader: Reader, service: spec.ServiceSpec, value: Value, where: str) -> None:
    placement, task = service.task.placement, service.task

    def labels(inner: Value, at: str) -> None:
        for key, text, _ in reader.pairs(inner, at):
            service.labels[key] = text or ""

    def mode(inner: Value, at: str) -> None:
        service.mode = reader.parsed(inner, at, scalars.MODES)
        if service.mode == spec.SERVICE_MODE_GLOBAL:
            _no_replicas(reader, value, where)
            service.replicas = 0

    def replicas(inner: Value, at: str) -> None:
        if service.mode != spec.SERVICE_MODE_GLOBAL:
            service.replicas = reader.parsed(inner, at, numbers.replicas)

    def policy(which: str) -> Handler:
        return lambda inner, at: _policy(reader, policies.policy(service, which), which, inner, at)

    def preferences(inner: Value, at: str) -> None:
        for item in reader.items(inner, at):
            for key, text, line in reader.pairs(item, at):
                try:
                    placement.preferences.append(pairs.preference(f"{key}={text}"))
                except InvalidInput as error:
                    reader.fail(line, f"{at}: {error}")

    def constraints(inner: Value, at: str) -> None:
        items = reader.items(inner, at)
        placement.constraints[:] = [reader.parsed(item, at, pairs.constraint) for item in items]

    def places(inner: Value, at: str) -> None:
        handlers = {
            "constraints": constraints,
            "preferences": preferences,
            "max_replicas_per_node": _set(reader, placement, "max_per_node", _count(0, numbers.MAX_REPLICAS)),
        }
        reader.walk(inner, at, handlers)

    def restart(inner: Value, at: str) -> None:
        task.restart.SetInParent()
        handlers = {
            "condition": _set(reader, task.restart, "condition", scalars.RESTART_CONDITIONS),
            "delay": _set(reader, task.restart, "delay", durations.duration),
            "max_attempts": _set(reader, task.restart, "max_attempts", _count(0, 1_000_000)),
            "window": _set(reader, task.restart, "window", durations.duration),
        }
        reader.walk(inner, at, handlers)

    handlers = {
        "mode": mode,
        "replicas": replicas,
        "labels": labels,
        "endpoint_mode": _set(reader, service, "endpoint_mode", scalars.ENDPOINT_MODES),
        "update_config": policy("update"),
        "rollback_config": policy("rollback"),
        "restart_policy": restart,
        "placement": places,
        "resources": lambda inner, at: _resources(reader, task.resources, inner, at),
    }
    reader.walk(value, where, handlers)


def _no_replicas(reader: Reader, value: Value, where: str) -> None:
    entry = reader.map(value, where).entries.get("replicas")
    if entry is not None:
        reader.fail(entry.line, f"{where}.replicas does not go with mode global: it has one task on each node")


def _policy(reader: Reader, policy: spec.UpdatePolicy, which: str, value: Value, where: str) -> None:
    actions = policies.UPDATE_FAILURE_ACTIONS if which == "update" else policies.ROLLBACK_FAILURE_ACTIONS
    handlers = {
        "parallelism": _set(reader, policy, "parallelism", policies.PARALLELISM),
        "delay": _set(reader, policy, "delay", durations.duration),
        "failure_action": _set(reader, policy, "failure_action", actions),
        "monitor": _set(reader, policy, "monitor", durations.positive_duration),
        "max_failure_ratio": _set(reader, policy, "max_failure_ratio", numbers.ratio),
        "order": _set(reader, policy, "order", policies.ORDERS),
    }
    reader.walk(value, where, handlers)


def check_order(reader: Reader, service: Value, where: str) -> None:
    """Of an exclusive service: it is updated stop-first, whatever is not said; but the contrary must not be."""
    found = reader.map(service, where).entries.get("deploy")
    for key in ("update_config", "rollback_config"):
        policy = reader.map(found.value, where).entries.get(key) if found is not None else None
        order = reader.map(policy.value, where).entries.get("order") if policy is not None else None
        if order is not None and reader.parsed(order.value, where, policies.ORDERS) == spec.UPDATE_ORDER_START_FIRST:
            reader.fail(
                order.line,
                f"{where}.deploy.{key}.order: an exclusive service never has two tasks in a slot, so it cannot be "
                "start-first; leave the order out",
            )


def _resources(reader: Reader, resources: spec.Resources, value: Value, where: str) -> None:
    limits = {
        "cpus": _set(reader, resources, "limit_nano_cpus", numbers.cpus),
        "memory": _set(reader, resources, "limit_memory", numbers.memory),
        "pids": _set(reader, resources, "limit_pids", _count(0, 4_194_304)),
    }
    reservations = {
        "cpus": _set(reader, resources, "reserve_nano_cpus", numbers.cpus),
        "memory": _set(reader, resources, "reserve_memory", numbers.memory),
    }
    refused = {"devices": "containers get no devices", "generic_resources": "nodes have none"}
    handlers: dict[str, Handler] = {
        "limits": lambda inner, at: reader.walk(inner, at, limits),
        "reservations": lambda inner, at: reader.walk(inner, at, reservations, refused),
    }
    reader.walk(value, where, handlers)


def read_probe(reader: Reader, container: spec.ContainerSpec, value: Value, where: str) -> None:
    probe = spec.Probe()

    def test(inner: Value, at: str) -> None:
        if isinstance(inner, Seq):
            words = reader.strings(inner, at)
            kind = words[0] if words else ""
            if kind == "NONE" and len(words) == 1:
                probe.disabled = True
            elif kind == "CMD" and len(words) > 1:
                probe.command.values[:] = words[1:]
            elif kind == "CMD-SHELL" and len(words) == 2:
                probe.command.CopyFrom(processes.shell_probe(words[1]))
            else:
                reader.fail(inner.line, f'{at} must be ["CMD", …], ["CMD-SHELL", "…"] or ["NONE"]')
        else:
            probe.command.CopyFrom(reader.parsed(inner, at, processes.shell_probe))

    def disable(inner: Value, at: str) -> None:
        probe.disabled = reader.boolean(inner, at)

    handlers = {
        "test": test,
        "disable": disable,
        "interval": _set(reader, probe, "interval", durations.positive_duration),
        "timeout": _set(reader, probe, "timeout", durations.positive_duration),
        "retries": _set(reader, probe, "retries", probes.RETRIES),
        "start_period": _set(reader, probe, "start_period", durations.duration),
    }
    reader.walk(value, where, handlers, {"start_interval": "a probe runs each second until it first passes"})
    _take_probe(reader, container, probe, value, where)


def _take_probe(reader: Reader, container: spec.ContainerSpec, probe: spec.Probe, value: Value, where: str) -> None:
    """x-pyswarm.probe and healthcheck are two halves: the check, and its times."""
    if probe.disabled:
        probe = spec.Probe(disabled=True)
    elif container.HasField("probe"):
        if probe.WhichOneof("check") and container.probe.WhichOneof("check"):
            reader.fail(value.line, f"{where} and x-pyswarm name two probes; a task has one")
        probe.MergeFrom(container.probe)
    container.probe.CopyFrom(probe)


def read_logging(reader: Reader, task: spec.TaskSpec, value: Value, where: str) -> None:
    def driver(inner: Value, at: str) -> None:
        name = reader.text(inner, at)
        if name not in ("json-file", "local"):
            reader.fail(inner.line, f"{at} '{name}' is not supported: logs are files, read by 'pyswarm service logs'")

    handlers: dict[str, Handler] = {
        "max-size": _set(reader, task.log, "max_size", pairs.log_size),
        "max-file": _set(reader, task.log, "max_file", pairs.log_files),
    }
    reader.walk(value, where, {"driver": driver, "options": lambda inner, at: reader.walk(inner, at, handlers)})


def read_extension(reader: Reader, service: spec.ServiceSpec, value: Value, where: str) -> None:
    """x-pyswarm: what Compose has no key for."""
    probe = spec.Probe()

    def http(inner: Value, at: str) -> None:
        probe.http.CopyFrom(reader.parsed(inner, at, processes.http_probe))

    def tcp(inner: Value, at: str) -> None:
        probe.tcp.CopyFrom(reader.parsed(inner, at, processes.tcp_probe))

    def deadline(which: str) -> Handler:
        return lambda inner, at: setattr(
            policies.policy(service, which), "deadline", reader.parsed(inner, at, durations.positive_duration)
        )

    handlers = {
        "drain_timeout": _set(reader, service.task, "drain_timeout", durations.duration),
        "exclusive": lambda inner, at: setattr(service.task, "exclusive", reader.boolean(inner, at)),
        "affinity": lambda inner, at: setattr(service, "affinity", reader.boolean(inner, at)),
        "health_http": http,
        "health_tcp": tcp,
        "update_deadline": deadline("update"),
        "rollback_deadline": deadline("rollback"),
    }
    for entry in reader.map(value, where).entries.values():
        if entry.key not in handlers:
            reader.unknown(entry, where, handlers)
    reader.walk(value, where, handlers)
    if probe.WhichOneof("check"):
        _take_probe(reader, service.task.container, probe, value, where)


def _set(reader: Reader, message: Any, field: str, parse: Callable[[str], Any]) -> Handler:
    return lambda value, where: setattr(message, field, reader.parsed(value, where, parse))


def _count(lowest: int, highest: int) -> Callable[[str], int]:
    return lambda text: numbers.whole(text, "it", lowest, highest)
