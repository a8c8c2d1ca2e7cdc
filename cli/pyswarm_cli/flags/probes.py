"""--health-*: the probe that decides whether a task may take connections."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.flags.model import Apply, Flag, Options
from pyswarm_cli.flags.scalars import Service, count
from pyswarm_cli.parse import durations, processes
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

CHECKS = ("health_cmd", "health_http", "health_tcp")
RETRIES = count("the number of retries", 1, 1000)


def enabled(service: Service) -> spec.Probe:
    probe = service.task.container.probe
    probe.disabled = False
    return probe


def _command(service: Service, value: spec.StringList, _: Options) -> None:
    enabled(service).command.CopyFrom(value)


def _http(service: Service, value: spec.HttpCheck, _: Options) -> None:
    enabled(service).http.CopyFrom(value)


def _tcp(service: Service, value: spec.TcpCheck, _: Options) -> None:
    enabled(service).tcp.CopyFrom(value)


def _time(field: str) -> Apply:
    def apply(service: Service, value: Any, _: Options) -> None:
        container = service.task.container
        if not container.HasField("probe") or container.probe.WhichOneof("check") is None:
            name = field.replace("_", "-")
            raise InvalidInput(
                f"--health-{name} needs a probe: give --health-cmd, --health-http or --health-tcp (a HEALTHCHECK of "
                "the image brings its own times)"
            )
        setattr(container.probe, field, value)

    return apply


def _disable(service: Service, value: bool, _: Options) -> None:
    """--no-healthcheck=false takes the probe out of the spec: the image's own holds again."""
    service.task.container.ClearField("probe")
    if value:
        service.task.container.probe.disabled = True


PROBES: tuple[Flag, ...] = (
    Flag("no-healthcheck", "No probe, not even the image's.", _disable, None),
    Flag("health-cmd", "A shell command in the container; healthy: exit 0.", _command, processes.shell_probe,
         "COMMAND"),
    Flag("health-http", "GET this; healthy: 2xx or 3xx.", _http, processes.http_probe, "PORT/PATH"),
    Flag("health-tcp", "Healthy: this port accepts connections.", _tcp, processes.tcp_probe, "PORT"),
    Flag("health-interval", "Between two probes.", _time("interval"), durations.positive_duration, "TIME"),
    Flag("health-timeout", "A probe that takes longer has failed.", _time("timeout"), durations.positive_duration,
         "TIME"),
    Flag("health-retries", "Failures in a row that make a task unhealthy.", _time("retries"), RETRIES, "N"),
    Flag("health-start-period", "After the start, failures do not count for this time.", _time("start_period"),
         durations.duration, "TIME"),
)  # fmt: skip
