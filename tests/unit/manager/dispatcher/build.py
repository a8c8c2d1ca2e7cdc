"""What the dispatcher's tests store, and what they look for."""

from __future__ import annotations

from tests.support.manager import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

ASSIGNED, RUNNING = pb.TASK_STATE_ASSIGNED, pb.TASK_STATE_RUNNING


def service(service_id: str = "web") -> pb.Service:
    task = spec.TaskSpec(networks=[spec.NetworkAttachment(network_id="net")])
    return pb.Service(
        id=service_id,
        spec=spec.ServiceSpec(name=service_id, replicas=1, task=task),
        vips=[pb.Vip(network_id="net", address="10.128.0.9")],
    )


NETWORK = pb.Network(id="net", vni=4097, spec=spec.NetworkSpec(name="net", subnet="10.128.0.0/16"))


def task(task_id: str, node: str = "n1", *, service_id: str = "web", **fields: object) -> pb.Task:
    fields.setdefault("desired_state", RUNNING)
    fields.setdefault("status", pb.TaskStatus(state=ASSIGNED))
    return pb.Task(
        id=task_id,
        service_id=service_id,
        service_name=service_id,
        slot=1,
        node_id=node,
        addresses=[pb.TaskAddress(network_id="net", address=f"10.128.64.{len(task_id)}")],
        **fields,
    )


def state(cluster: Cluster, task_id: str) -> int:
    stored = cluster.world.tasks.get(task_id)
    return stored.status.state if stored else -1


def is_ready(cluster: Cluster, node_id: str) -> bool:
    node = cluster.world.nodes.get(node_id)
    return node is not None and node.state == pb.NODE_STATE_READY and node.serving
