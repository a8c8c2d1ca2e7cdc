"""Faults have ended: is everything as it was asked for, and is nothing left of what was?"""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation import specs
from tests.simulation.checks.words import is_over, is_wanted, serves
from tests.simulation.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator.view import ACTIVE
from pyswarm_manager.scheduler.constraints import matches


def unsettled(cluster: Cluster) -> list[str]:
    """What is not right yet; one line each."""
    if cluster.leader() is None:
        return ["nobody leads"]
    found = [*_nodes(cluster), *_services(cluster), *_tasks(cluster)]
    return found or [*_hosts(cluster)]


def _nodes(cluster: Cluster) -> Iterator[str]:
    for host in cluster.hosts.values():
        node = cluster.truth.nodes.get(host.node_id)
        if node is None:
            yield f"{host.node_id} is not registered"
        elif node.state != pb.NODE_STATE_READY or not node.serving:
            yield f"{node.id} is {pb.NodeState.Name(node.state)}, serving {node.serving}: {node.state_message}"


def _services(cluster: Cluster) -> Iterator[str]:
    truth = cluster.truth
    for network in truth.networks.values():
        if network.removing:
            yield f"network {network.spec.name} is still being removed"
    for service in truth.services.values():
        name = service.spec.name
        if service.removing:
            yield f"{name} is still being removed"
            continue
        rollout = truth.rollouts.get(service.rollout_id)
        if rollout is None or rollout.state in ACTIVE:
            yield f"{name}: its rollout is not over"
        elif not specs.is_sound(service.spec):
            yield f"{name}: its image is not sound"
        elif rollout.state == pb.ROLLOUT_STATE_PAUSED:
            yield f"{name}: its rollout is paused: {rollout.reason}"
        for other in truth.rollouts.values():
            if other.service_id == service.id and other.id != service.rollout_id and other.state in ACTIVE:
                yield f"{name}: an old rollout is still going on"
        tasks = truth.tasks_of_service(service.id)
        serving = [task for task in tasks if serves(task, truth.nodes) and task.balanced_at]
        wanted = service.spec.replicas
        if service.spec.mode == spec.SERVICE_MODE_GLOBAL:
            constraints = service.spec.task.placement.constraints
            wanted = sum(matches(constraints, node) for node in truth.nodes.values())
        if len(serving) != wanted or any(task.spec != service.spec.task for task in serving):
            states = [
                f"{task.slot} {pb.TaskState.Name(task.status.state)[11:].lower()} {task.status.message}"
                for task in tasks
                if is_wanted(task)
            ]
            yield f"{name}: {len(serving)} of {wanted} serve: {states}"
        elif len({(task.slot, "" if task.slot else task.node_id) for task in serving}) != wanted:
            yield f"{name}: two tasks serve in one slot"
        if service.spec.endpoint_mode == spec.ENDPOINT_MODE_VIP:
            attached = {attachment.network_id for attachment in service.spec.task.networks}
            if {vip.network_id for vip in service.vips} != attached:
                yield f"{name}: its VIPs are not those of its networks"


def _tasks(cluster: Cluster) -> Iterator[str]:
    for task in cluster.truth.tasks.values():
        if task.service_id not in cluster.truth.services:
            yield f"{_name(task)} {task.id} has outlived its service"
        elif not is_over(task) and not is_wanted(task):
            yield f"{_name(task)} {task.id} is still stopping"
        elif is_over(task) and not task.addresses_free:
            yield f"{_name(task)} {task.id} is over and holds its addresses"


def _hosts(cluster: Cluster) -> Iterator[str]:
    truth = cluster.truth
    backends = {
        service.id: {
            address.address
            for task in truth.tasks_of_service(service.id)
            if serves(task, truth.nodes)
            for address in task.addresses
        }
        for service in truth.services.values()
    }
    for host in cluster.hosts.values():
        own = {task.id: task for task in truth.tasks_of_node(host.node_id)}
        alive = {task_id for task_id, task in own.items() if not is_over(task)}
        for what, there in (("container", host.containers), ("link", host.links), ("mount", host.mounts)):
            for task_id in there.keys() - alive:
                yield f"{host.name} has a {what} of {task_id}, which is over"
            for task_id in alive - there.keys():
                yield f"{host.name} has no {what} of {task_id}, which lives"
        for task_id in host.logs.keys() - own.keys():
            yield f"{host.name} has logs of {task_id}, which is forgotten"
        for task_id, container in host.containers.items():
            if task_id not in host.fuses and container.task.spec.exclusive:
                yield f"{host.name}: no fuse is beside the container of {task_id}"
            if not container.running:
                yield f"{host.name}: the container of {task_id} does not run"
        for task_id in host.fuses.keys() - host.containers.keys():
            yield f"{host.name} has a fuse of {task_id}, which is gone"
        if host.state is None:
            yield f"{host.name} has nothing in its kernel"
            continue
        held = {address.address for task_id in alive for address in own[task_id].addresses}
        for address in host.redirects:
            yield f"{host.name} still redirects {address}"
        for service_id, service in host.state.services.items():
            if service_id.startswith("host:"):
                if not service.backends <= held:
                    yield f"{host.name}: {service.name}'s host port leads to {sorted(service.backends - held)}"
            elif service_id not in backends:
                yield f"{host.name} still balances {service.name}, which is gone"
            elif not service.backends <= backends[service_id]:
                yield f"{host.name}: {service.name} leads to {sorted(service.backends - backends[service_id])}"
        for service_id, wanted in backends.items():
            known = host.state.services.get(service_id)
            service = truth.services[service_id]
            entrances = known is not None and (known.vips or known.published)
            if wanted and known is None:
                yield f"{host.name} does not balance {service.spec.name}"
            elif wanted and known is not None and entrances and not known.backends:
                yield f"{host.name}: {service.spec.name} leads to nobody"


def _name(task: pb.Task) -> str:
    return f"{task.service_name}.{task.slot or task.node_id}"
