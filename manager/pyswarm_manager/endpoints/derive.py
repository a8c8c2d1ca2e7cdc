"""A service's endpoints, as every host gets them. Nothing of it is stored: it is derived anew when anything changes.

Serving: `tasks.is_endpoint`. Leaving: every other task that a balancer or an open connection may still know and whose
addresses are not free: told to leave, turned unhealthy, died without notice, or on a node that is down. Its owner
redirects new flows away from it.

The result is deterministic (endpoints by slot, node and id; the rest as in the spec), so comparing two of them tells
whether anything changed.
"""

from __future__ import annotations

from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.endpoints import hold
from pyswarm_manager.plan import World
from pyswarm_manager.tasks import display_name, is_endpoint


def derive(world: World, service_id: str, now: float, empty_since: float | None) -> ep.ServiceEndpoints:
    """`empty_since`: since when the service has had no serving endpoint, as its caller remembers (unix seconds); None
    when it had one until now, or nobody remembers. A service that is gone leaves its tasks that still leave."""
    service = world.services.get(service_id)
    result = ep.ServiceEndpoints(service_id=service_id)
    serving = False
    tasks = [task for task in world.tasks_of_service(service_id) if task.addresses and not task.addresses_free]
    for task in sorted(tasks, key=lambda task: (task.slot, task.node_id, task.id)):
        node = world.nodes.get(task.node_id)
        if is_endpoint(task, node):
            state, serving = ep.ENDPOINT_STATE_SERVING, True
        elif _may_be_known(task):
            state = ep.ENDPOINT_STATE_LEAVING
        else:
            continue
        result.endpoints.add(
            task_id=task.id,
            node_id=task.node_id,
            slot=task.slot,
            addresses=task.addresses,
            weight=1,
            state=state,
            hostname=node.description.hostname if node is not None else "",
            task_name=display_name(task),
        )
    if service is None:
        return result
    result.name = service.spec.name
    result.mode = service.spec.endpoint_mode
    result.affinity = service.spec.affinity
    result.vips.extend(service.vips)
    result.ports.extend(port for port in service.spec.ports if port.mode == spec.PUBLISH_MODE_INGRESS)
    result.networks.extend(service.spec.task.networks)
    if not serving:
        until = hold.ends_at(world, service, now, empty_since)
        result.hold = until is not None and now < until
    return result


def hold_until(world: World, service_id: str, now: float, empty_since: float | None) -> float | None:
    """When `derive` has to be asked again though nothing has changed: the time at which the hold in force ends. None:
    no hold is in force."""
    service = world.services.get(service_id)
    if service is None or is_serving(world, service_id):
        return None
    until = hold.ends_at(world, service, now, empty_since)
    return until if until is not None and now < until else None


def is_serving(world: World, service_id: str) -> bool:
    """Whether the service has an endpoint that takes new connections: what `empty_since` is kept by."""
    return any(
        task.addresses and not task.addresses_free and is_endpoint(task, world.nodes.get(task.node_id))
        for task in world.tasks_of_service(service_id)
    )


def _may_be_known(task: pb.Task) -> bool:
    """Some balancer may have it, or may have had it: it was told to leave, or was healthy at some time."""
    return bool(
        task.leaving or task.balanced_at or task.status.timings.healthy_at or task.status.state == pb.TASK_STATE_RUNNING
    )
