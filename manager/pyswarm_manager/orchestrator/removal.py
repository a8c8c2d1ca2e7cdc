"""The end of a service: its tasks leave by the ordered drain, then what is stored of it goes, the service itself last.

Its name, ports and addresses stay taken until then. A task on a node that is down holds all this up until the node
returns or is removed from the cluster: nobody can know that it does not run."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.orchestrator import changes
from pyswarm_manager.orchestrator.fitness import is_gone
from pyswarm_manager.orchestrator.transactions import pack
from pyswarm_manager.plan import Delete, Plan, Put, World, Write
from pyswarm_manager.tasks import display_name, is_terminal


def plan(world: World, service_id: str, now: float) -> Plan:
    """Also for tasks whose service is no longer stored."""
    groups: list[tuple[Write, ...]] = []
    notes: list[str] = []
    rest = False
    for task in sorted(world.tasks_of_service(service_id), key=lambda t: (t.slot, t.node_id, t.id)):
        if is_terminal(task):
            if task.addresses_free:
                groups.append((Delete(task),))
                continue
        elif is_gone(world, task):
            groups.append((Put(changes.orphaned(task, now)),))
        elif task.desired_state < pb.TASK_STATE_SHUTDOWN:
            groups.append((Put(changes.dismiss(world, task, now, forget=True)),))
            notes.append(f"{display_name(task)}: {task.id} goes with its service")
        rest = True
    if not rest:
        groups += _last(world, service_id)
        notes.append(f"service {service_id} is gone")
    return Plan(steps=pack(groups), notes=tuple(notes) if groups else ())


def _last(world: World, service_id: str) -> list[tuple[Write, ...]]:
    """In this order: whoever finds the service finds what belongs to it."""
    last: list[tuple[Write, ...]] = [(Delete(rollout),) for rollout in world.rollouts_of_service(service_id)]
    auth = world.auths.get(service_id)
    if auth is not None:
        last.append((Delete(auth),))
    service = world.services.get(service_id)
    if service is not None:
        last.append((Delete(service),))
    return last
