"""Nodes as `node ls` and `node inspect` show them. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.messages import enum_name, to_dict
from pyswarm_cli.output.tables import short_id
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

HEADERS = ("ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "VERSION")
FILTERS = ("id", "name", "label", "role", "availability", "status")


def status(node: pb.Node) -> str:
    return enum_name(pb.NodeState.DESCRIPTOR, node.state)


def availability(node: pb.Node) -> str:
    return enum_name(spec.NodeAvailability.DESCRIPTOR, node.spec.availability)


def manager_status(node: pb.Node) -> str:
    """leader, reachable, unreachable, or nothing for a node that is no manager."""
    if not node.HasField("manager") or not node.manager.address:
        return ""
    if node.manager.leader:
        return "leader"
    return "reachable" if node.manager.reachable else "unreachable"


def row(node: pb.Node, no_trunc: bool) -> list[str]:
    return [
        short_id(node.id, no_trunc),
        node.description.hostname,
        status(node).capitalize(),
        availability(node).capitalize(),
        manager_status(node).capitalize(),
        node.description.version,
    ]


def summary(node: pb.Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "hostname": node.description.hostname,
        "status": status(node),
        "status_message": node.state_message,
        "availability": availability(node),
        "manager_status": manager_status(node),
        "manager_message": node.manager.message,
        "role": enum_name(spec.NodeRole.DESCRIPTOR, node.spec.role),
        "addresses": [node.address] if node.address else [],
        "labels": dict(sorted(node.spec.labels.items())),
        "version": node.description.version,
    }


def details(node: pb.Node) -> dict[str, Any]:
    """One object of `node inspect`: what `node ls` has, and the rest."""
    return {**to_dict(node), **summary(node)}


def matches(key: str, node: pb.Node, wanted: str) -> bool:
    from pyswarm_cli.output.options import label_matches

    if key == "id":
        return node.id.startswith(wanted)
    if key == "name":
        return node.description.hostname.startswith(wanted)
    if key == "role":
        return enum_name(spec.NodeRole.DESCRIPTOR, node.spec.role) == wanted.lower()
    if key == "availability":
        return availability(node) == wanted.lower()
    if key == "status":
        return status(node) == wanted.lower()
    return label_matches(node.spec.labels, wanted)
