"""Who manages the cluster, as agents, users and other managers are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_core.membership.member import API_PORT
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def api_addresses(nodes: Mapping[str, pb.Node], living: Mapping[str, pb.Manager]) -> tuple[str, ...]:
    """HOST:PORT of each manager's API, ordered. Those that are away are among them, for they may come back before the
    others do; those that are to be workers are not, unless they are all there is."""
    found: dict[str, str] = {}
    for node in nodes.values():
        if node.spec.role == spec.NODE_ROLE_MANAGER and node.address:
            found[node.id] = f"{node.address}:{API_PORT}"
    for manager in living.values():
        node_of = nodes.get(manager.id)
        if node_of is None or node_of.spec.role == spec.NODE_ROLE_MANAGER:
            found[manager.id] = manager.address
    return tuple(sorted(set(found.values()))) or tuple(sorted(manager.address for manager in living.values()))
