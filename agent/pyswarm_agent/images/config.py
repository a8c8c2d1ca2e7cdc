"""An image's config (Docker's or OCI's JSON) → ImageConfig. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm_agent.interfaces import ImageConfig
from pyswarm_core.v1 import spec_pb2 as spec

_DEFAULT_SHELL = ("/bin/sh", "-c")
_NANO = 1_000_000_000


def parse(blob: Mapping[str, Any]) -> ImageConfig:
    """Missing parts and nulls are empty."""
    config: Mapping[str, Any] = blob.get("config") or {}
    return ImageConfig(
        entrypoint=_strings(config.get("Entrypoint")),
        cmd=_strings(config.get("Cmd")),
        env=_strings(config.get("Env")),
        user=config.get("User") or "",
        workdir=config.get("WorkingDir") or "",
        stop_signal=config.get("StopSignal") or "",
        volumes=tuple(sorted(config.get("Volumes") or ())),
        exposed=tuple(sorted(config.get("ExposedPorts") or ())),
        probe=_probe(config.get("Healthcheck"), _strings(config.get("Shell")) or _DEFAULT_SHELL),
        labels=dict(config.get("Labels") or {}),
    )


def _strings(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Some old images have one string where a list belongs."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _probe(check: Mapping[str, Any] | None, shell: Sequence[str]) -> spec.Probe | None:
    """HEALTHCHECK's durations are nanoseconds, 0 for the default; so they are here, in seconds."""
    test = _strings((check or {}).get("Test"))
    if check is None or not test:
        return None
    kind, *rest = test
    if kind == "NONE":
        return spec.Probe(disabled=True)
    if kind == "CMD-SHELL":
        command = [*shell, *rest[:1]]
    elif kind == "CMD":
        command = rest
    else:
        command = [kind, *rest]
    if not command:
        return None
    return spec.Probe(
        command=spec.StringList(values=command),
        interval=(check.get("Interval") or 0) / _NANO,
        timeout=(check.get("Timeout") or 0) / _NANO,
        retries=check.get("Retries") or 0,
        start_period=(check.get("StartPeriod") or 0) / _NANO,
    )
