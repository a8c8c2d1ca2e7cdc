"""Services as `service ls` and `service inspect` show them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyswarm_cli.output.messages import enum_name, to_dict
from pyswarm_cli.output.tables import short_id
from pyswarm_cli.output.times import rfc3339
from pyswarm_cli.parse.references import familiar
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import spec_pb2 as spec

HEADERS = ("ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS")
_MODES = spec.ServiceMode.DESCRIPTOR
# What is of no use in JSON: `version` is only for writers, and the id of the rollout is in the rollout.
_ROLLOUT_OMIT = frozenset({"version", "service_id", "service_name", "batch_finished_at"})


def port_text(port: spec.Port) -> str:
    """*:8080->80/tcp"""
    protocol = "udp" if port.protocol == spec.PROTOCOL_UDP else "tcp"
    return f"*:{port.published}->{port.target}/{protocol}"


def replicas(view: control.ServiceView) -> str:
    return f"{view.running}/{view.desired}"


def row(view: control.ServiceView, no_trunc: bool) -> list[str]:
    service = view.service
    mode = enum_name(_MODES, service.spec.mode)
    image = familiar(service.spec.task.container.image)
    if no_trunc and service.spec.task.container.digest:
        image = f"{image}@{service.spec.task.container.digest}"
    return [
        short_id(service.id, no_trunc),
        service.spec.name,
        f"{mode} (removing)" if service.removing else mode,
        replicas(view),
        image,
        ", ".join(port_text(port) for port in service.spec.ports),
    ]


def summary(view: control.ServiceView) -> dict[str, Any]:
    """One object of `service ls --format json`."""
    service = view.service
    return {
        "id": service.id,
        "name": service.spec.name,
        "mode": enum_name(_MODES, service.spec.mode),
        "replicas": replicas(view),
        "running": view.running,
        "desired": view.desired,
        "image": familiar(service.spec.task.container.image),
        "digest": service.spec.task.container.digest,
        "ports": [to_dict(port) for port in service.spec.ports],
        "labels": dict(sorted(service.spec.labels.items())),
        "removing": service.removing,
        "created_at": rfc3339(service.created_at),
        "updated_at": rfc3339(service.updated_at),
    }


def details(view: control.ServiceView, networks: Mapping[str, str]) -> dict[str, Any]:
    """One object of `service inspect`. `networks`: id → name."""
    service = view.service
    has_rollout = view.HasField("rollout") and bool(view.rollout.id)
    return {
        "id": service.id,
        "name": service.spec.name,
        "version": service.version,
        "created_at": rfc3339(service.created_at),
        "updated_at": rfc3339(service.updated_at),
        "spec_version": service.spec_version,
        "removing": service.removing,
        "running": view.running,
        "desired": view.desired,
        "spec": to_dict(service.spec),
        "previous_spec": to_dict(service.previous_spec) if service.HasField("previous_spec") else None,
        "endpoint": {
            "mode": enum_name(spec.EndpointMode.DESCRIPTOR, service.spec.endpoint_mode),
            "vips": [
                {
                    "network_id": vip.network_id,
                    "network": networks.get(vip.network_id, vip.network_id),
                    "address": vip.address,
                }
                for vip in service.vips
            ],
            "ports": [to_dict(port) for port in service.spec.ports],
        },
        "rollout": to_dict(view.rollout, omit=_ROLLOUT_OMIT) if has_rollout else None,
    }


def matches(key: str, view: control.ServiceView, wanted: str) -> bool:
    from pyswarm_cli.output.options import label_matches

    service = view.service
    if key == "id":
        return service.id.startswith(wanted)
    if key == "name":
        return service.spec.name.startswith(wanted)
    if key == "mode":
        return enum_name(_MODES, service.spec.mode) == wanted.lower()
    return label_matches(service.spec.labels, wanted)


FILTERS = ("id", "name", "mode", "label")
