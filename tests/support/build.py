"""Short ways to make the messages that planner tests start from, with the defaults that the API fills in."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


def node(
    name: str,
    *,
    state: pb.NodeState.ValueType = pb.NODE_STATE_READY,
    availability: spec.NodeAvailability.ValueType = spec.NODE_AVAILABILITY_ACTIVE,
    labels: dict[str, str] | None = None,
    number: int = 1,
    cpus: int = 4,
    memory: int = 8 << 30,
    serving: bool = True,
) -> pb.Node:
    return pb.Node(
        id=name,
        spec=spec.NodeSpec(availability=availability, labels=labels or {}),
        description=pb.NodeDescription(
            hostname=name,
            platform=spec.Platform(os="linux", architecture="amd64"),
            nano_cpus=cpus * 1_000_000_000,
            memory=memory,
        ),
        state=state,
        number=number,
        address=f"10.90.0.{10 + number}",
        serving=serving,
    )


def task_spec(image: str = "registry.lab:5000/web:v1", *, constraints: tuple[str, ...] = ()) -> spec.TaskSpec:
    return spec.TaskSpec(
        container=spec.ContainerSpec(image=image, stop_grace=10),
        resources=spec.Resources(),
        restart=spec.RestartPolicy(condition=spec.RESTART_CONDITION_ANY, delay=1),
        placement=spec.Placement(constraints=constraints),
        networks=[spec.NetworkAttachment(network_id="default")],
        drain_timeout=10,
    )


def policy(
    *,
    parallelism: int = 1,
    delay: float = 0,
    order: spec.UpdateOrder.ValueType = spec.UPDATE_ORDER_START_FIRST,
    monitor: float = 5,
    action: spec.FailureAction.ValueType = spec.FAILURE_ACTION_ROLLBACK,
    ratio: float = 0,
    deadline: float = 600,
) -> spec.UpdatePolicy:
    return spec.UpdatePolicy(
        parallelism=parallelism,
        delay=delay,
        order=order,
        monitor=monitor,
        failure_action=action,
        max_failure_ratio=ratio,
        deadline=deadline,
    )


def service_spec(
    name: str = "web",
    *,
    replicas: int = 3,
    mode: spec.ServiceMode.ValueType = spec.SERVICE_MODE_REPLICATED,
    task: spec.TaskSpec | None = None,
    update: spec.UpdatePolicy | None = None,
    rollback: spec.UpdatePolicy | None = None,
) -> spec.ServiceSpec:
    return spec.ServiceSpec(
        name=name,
        mode=mode,
        replicas=replicas,
        task=task or task_spec(),
        update=update or policy(),
        rollback=rollback or policy(),
    )


def service(wanted: spec.ServiceSpec, *, service_id: str = "svc", rollout_id: str = "", version: int = 1) -> pb.Service:
    return pb.Service(
        id=service_id,
        spec=wanted,
        spec_version=version,
        rollout_id=rollout_id,
        vips=[pb.Vip(network_id="default", address="10.128.0.2")],
    )


def rollout(
    of: pb.Service, *, now: float, from_version: int = 0, kind: pb.RolloutKind.ValueType = pb.ROLLOUT_KIND_DEPLOY
) -> pb.Rollout:
    return pb.Rollout(
        id=of.rollout_id,
        service_id=of.id,
        service_name=of.spec.name,
        kind=kind,
        from_version=from_version,
        to_version=of.spec_version,
        started_at=now,
        deadline_at=now + of.spec.update.deadline,
    )


def task(
    task_id: str,
    of: pb.Service,
    *,
    slot: int = 1,
    node_id: str = "",
    state: pb.TaskState.ValueType = pb.TASK_STATE_NEW,
    desired: pb.TaskState.ValueType = pb.TASK_STATE_RUNNING,
    health: pb.Health.ValueType = pb.HEALTH_NONE,
    created_at: float = 0,
    at: float = 0,
) -> pb.Task:
    return pb.Task(
        id=task_id,
        created_at=created_at,
        service_id=of.id,
        service_name=of.spec.name,
        slot=slot,
        node_id=node_id,
        spec=of.spec.task,
        spec_version=of.spec_version,
        desired_state=desired,
        status=pb.TaskStatus(state=state, health=health, at=at or created_at),
    )
