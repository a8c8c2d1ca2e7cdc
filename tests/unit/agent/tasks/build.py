"""Tasks for tests."""

from __future__ import annotations

from typing import Any

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def make_task(task_id: str = "t1", **changes: Any) -> pb.Task:
    task = pb.Task(
        id=task_id, service_id="s1", service_name="web", slot=1, node_id="n1", desired_state=pb.TASK_STATE_RUNNING
    )
    task.status.state = pb.TASK_STATE_ASSIGNED
    task.spec.container.image = "docker.io/library/web:latest"
    task.spec.container.stop_grace = 5.0
    task.spec.drain_timeout = 10.0
    task.addresses.append(pb.TaskAddress(network_id="net1", address="10.128.64.2"))
    for name, value in changes.items():
        setattr(task, name, value)
    return task


def told(task: pb.Task, **changes: Any) -> pb.Task:
    copy = pb.Task()
    copy.CopyFrom(task)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def tcp_probe() -> spec.Probe:
    return spec.Probe(tcp=spec.TcpCheck(port=80), interval=1.0, timeout=1.0, retries=2)
