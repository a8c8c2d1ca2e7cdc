"""The discovery keys: JSON for outsiders, in etcd beside the state, e.g. for a DNS server or a proxy of one's own.

`/pyswarm/discovery/services/<name>` holds, for each service:

    {"id": "…", "name": "web", "mode": "vip", "labels": {…},
     "vips": {"default": "10.128.0.1"},
     "ports": [{"published": 8080, "target": 80, "protocol": "tcp", "mode": "ingress"}],
     "endpoints": [{"task": "web.1", "task_id": "…", "slot": 1, "node": "host-1", "node_id": "…",
                    "node_address": "10.90.0.11", "addresses": {"default": "10.128.64.1"}}]}

Only endpoints that take new connections are in it; networks are given by name. The same input gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pyswarm_core.kinds import DISCOVERY_PREFIX
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World

SERVICES_PREFIX = DISCOVERY_PREFIX + "services/"
_MODES = {spec.ENDPOINT_MODE_VIP: "vip", spec.ENDPOINT_MODE_DNSRR: "dnsrr"}
_PROTOCOLS = {spec.PROTOCOL_TCP: "tcp", spec.PROTOCOL_UDP: "udp"}
_PUBLISH_MODES = {spec.PUBLISH_MODE_INGRESS: "ingress", spec.PUBLISH_MODE_HOST: "host"}


def service_key(name: str) -> str:
    return SERVICES_PREFIX + name


def service_value(world: World, service: pb.Service, endpoints: ep.ServiceEndpoints) -> bytes:
    """`endpoints`: what `endpoints.derive` says of this service."""
    value = {
        "id": service.id,
        "name": service.spec.name,
        "mode": _MODES[service.spec.endpoint_mode],
        "labels": dict(service.spec.labels),
        "vips": _by_network(world.networks, service.vips),
        "ports": [
            {
                "published": port.published,
                "target": port.target,
                "protocol": _PROTOCOLS[port.protocol],
                "mode": _PUBLISH_MODES[port.mode],
            }
            for port in service.spec.ports
        ],
        "endpoints": [
            _endpoint(world, endpoint)
            for endpoint in endpoints.endpoints
            if endpoint.state == ep.ENDPOINT_STATE_SERVING
        ],
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _endpoint(world: World, endpoint: ep.Endpoint) -> dict[str, Any]:
    node = world.nodes.get(endpoint.node_id)
    return {
        "task": endpoint.task_name,
        "task_id": endpoint.task_id,
        "slot": endpoint.slot,
        "node": endpoint.hostname,
        "node_id": endpoint.node_id,
        "node_address": node.address if node is not None else "",
        "addresses": _by_network(world.networks, endpoint.addresses),
    }


def _by_network(
    networks: Mapping[str, pb.Network], held: Iterable[pb.Vip] | Iterable[pb.TaskAddress]
) -> dict[str, str]:
    named = ((networks.get(one.network_id), one) for one in held)
    return {network.spec.name if network is not None else one.network_id: one.address for network, one in named}
