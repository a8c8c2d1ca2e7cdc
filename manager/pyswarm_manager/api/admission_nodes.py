"""Requests about nodes and networks: is it valid, and what is stored for it."""

from __future__ import annotations

from collections.abc import Collection

from pyswarm_core.errors import AlreadyExists, Conflict, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator import networks, nodes
from pyswarm_manager.allocator.networks import DEFAULT_NETWORK
from pyswarm_manager.allocator.ranges import Range
from pyswarm_manager.allocator.service import may_go_back
from pyswarm_manager.api.names import check_labels, check_name, check_node_labels
from pyswarm_manager.plan import Delete, Put, World, Write, changed
from pyswarm_manager.tasks import may_be_exclusive


def update_node(world: World, node: pb.Node, wanted: spec.NodeSpec, *, version: int = 0) -> pb.Node:
    """`version`: of the node that the spec was made from, 0 = whatever is stored now. Conflict, InvalidInput;
    PreconditionFailed: the last manager cannot become a worker."""
    if version and version != node.version:
        raise Conflict(f"Node {_name(node)} was changed meanwhile: look at it and try again.")
    if wanted.availability not in spec.NodeAvailability.values():
        raise InvalidInput("The availability of a node must be active, pause or drain.")
    if wanted.role not in spec.NodeRole.values():
        raise InvalidInput("The role of a node must be worker or manager.")
    check_node_labels(wanted.labels)
    if node.spec.role == spec.NODE_ROLE_MANAGER and wanted.role != spec.NODE_ROLE_MANAGER:
        refuse_last_manager(world, node)
    copy = changed(node)
    copy.spec.CopyFrom(wanted)
    return copy


def refuse_last_manager(world: World, node: pb.Node, living: Collection[str] | None = None) -> None:
    """`living`: ids of the managers that live; None: not known. PreconditionFailed."""
    others = {n.id for n in world.nodes.values() if n.spec.role == spec.NODE_ROLE_MANAGER and n.id != node.id}
    if not others:
        raise PreconditionFailed(
            f"Node {_name(node)} is the only manager: promote another one before this one is demoted."
        )
    if living is not None and not others.intersection(living):
        raise PreconditionFailed(
            f"Node {_name(node)} is the only manager that lives: bring another one back before this one is demoted."
        )


def remove_node(world: World, node: pb.Node, *, force: bool, now: float) -> tuple[Write, ...]:
    """The writes, of one transaction; from then on the node's certificate is refused. Its tasks become orphans by the
    orchestrator's doing, and run elsewhere.

    PreconditionFailed: it is a manager; or it is not down, and `force` is not set."""
    name = _name(node)
    if node.spec.role == spec.NODE_ROLE_MANAGER:
        raise PreconditionFailed(f"Node {name} is a manager: demote it with `pyswarm node demote {name}` first.")
    if node.state != pb.NODE_STATE_DOWN and not force:
        raise PreconditionFailed(f"Node {name} is not down: stop its agent first, or remove it with --force.")
    if any(may_be_exclusive(task) for task in world.tasks_of_node(node.id)):
        raise PreconditionFailed(
            f"Node {name} may still run an exclusive task, which must have ended before anybody forgets it: drain the "
            "node first, or wait for half a minute after its agent was lost."
        )
    gone = pb.RemovedNode(id=node.id, hostname=node.description.hostname, removed_at=now)
    return *nodes.forget(world, node), Put(gone)


def create_network(
    world: World, wanted: spec.NetworkSpec, network_id: str, now: float, pool: Range = networks.POOL
) -> pb.Network:
    """InvalidInput, AlreadyExists (name, range), PreconditionFailed (nothing left to give)."""
    check_name("network", wanted.name)
    check_labels("label", wanted.labels)
    for other in world.networks.values():
        if other.spec.name == wanted.name:
            state = "is still being removed: try again in a moment" if other.removing else "exists"
            raise AlreadyExists(f"A network {wanted.name} {state}.")
    return networks.admit(world, wanted, network_id, now, pool)


def remove_network(world: World, network: pb.Network) -> Write | None:
    """Deletes it; or marks it as being removed while tasks on their way out hold addresses in it (the scheduler's run
    deletes it then); None: it is marked already. PreconditionFailed: services use it, or it is `default`."""
    name = network.spec.name
    if name == DEFAULT_NETWORK:
        raise PreconditionFailed("Network default cannot be removed: services without another network join it.")
    attached = [service for service in world.services.values() if _uses(service.spec, network.id)]
    users = sorted(service.spec.name for service in attached if not service.removing)
    if users:
        shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        plural = "s" if len(users) > 1 else ""
        raise PreconditionFailed(f"Network {name} is in use by service{plural} {shown}: remove or detach first.")
    for service in world.services.values():
        if not service.removing and may_go_back(world, service) and _uses(service.previous_spec, network.id):
            raise PreconditionFailed(
                f"The rollout of service {service.spec.name} may still go back to network {name}: wait for its end."
            )
    if network.removing:
        return None
    if not attached and not _is_held(world, network.id):
        return Delete(network)
    copy = changed(network)
    copy.removing = True
    return Put(copy)


def _uses(wanted: spec.ServiceSpec, network_id: str) -> bool:
    return any(attachment.network_id == network_id for attachment in wanted.task.networks)


def _is_held(world: World, network_id: str) -> bool:
    """A task has an address there, or a service a VIP."""
    return any(
        not task.addresses_free and any(address.network_id == network_id for address in task.addresses)
        for task in world.tasks.values()
    ) or any(vip.network_id == network_id for service in world.services.values() for vip in service.vips)


def _name(node: pb.Node) -> str:
    return node.description.hostname or node.id
