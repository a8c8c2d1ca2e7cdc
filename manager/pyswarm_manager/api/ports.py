"""Published ports: ranges, conflicts, and picking free ones.

An ingress port is taken on every host. A host-mode port is taken only where a task runs, so two services may have the
same one (the scheduler keeps them apart), but not one in host mode and another in ingress mode.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_core.errors import AlreadyExists, InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import World

FIRST_FREE, LAST_FREE = 30_000, 32_767  # what is picked from
# The cluster's own: publishing them would cut hosts off from each other.
_OWN = {
    (spec.PROTOCOL_TCP, 2377): "the managers' API",
    (spec.PROTOCOL_TCP, 2379): "etcd",
    (spec.PROTOCOL_TCP, 2380): "etcd",
    (spec.PROTOCOL_TCP, 9377): "the managers' metrics",
    (spec.PROTOCOL_TCP, 9378): "the agents' metrics",
    (spec.PROTOCOL_UDP, 4789): "VXLAN",
}
_MAY_GO_BACK = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK, pb.ROLLOUT_STATE_PAUSED)
_PROTOCOLS = {spec.PROTOCOL_TCP: "tcp", spec.PROTOCOL_UDP: "udp"}

Key = tuple[int, int]  # (protocol, published)


def text(port: spec.Port) -> str:
    return f"{port.published}/{_PROTOCOLS[port.protocol]}"


def check_ports(wanted: spec.ServiceSpec) -> None:
    """What can be told from the spec alone."""
    seen: set[Key] = set()
    pairs: set[tuple[int, int, int, int]] = set()
    for port in wanted.ports:
        if port.protocol not in _PROTOCOLS:
            raise InvalidInput("The protocol of a published port must be tcp or udp.")
        if port.mode not in spec.PublishMode.values():
            raise InvalidInput("The mode of a published port must be ingress or host.")
        if not 1 <= port.target <= 65535:
            raise InvalidInput(f"The target port {port.target} is not between 1 and 65535.")
        if port.published > 65535:
            raise InvalidInput(f"The published port {port.published} is not between 1 and 65535.")
        pair = (port.protocol, port.mode, port.target, port.published)
        if pair in pairs:
            which = f"{port.target}/{_PROTOCOLS[port.protocol]}"
            raise InvalidInput(f"The target port {which} is published twice in the same way: leave one of them out.")
        pairs.add(pair)
        if not port.published:
            continue
        key = (port.protocol, port.published)
        if key in seen:
            raise InvalidInput(f"Port {text(port)} is published twice: each port can lead to one place.")
        seen.add(key)
        if key in _OWN:
            raise InvalidInput(f"Port {text(port)} cannot be published: hosts need it for {_OWN[key]}.")
    if wanted.endpoint_mode == spec.ENDPOINT_MODE_DNSRR:
        ingress = next((port for port in wanted.ports if port.mode == spec.PUBLISH_MODE_INGRESS), None)
        if ingress is not None:
            raise InvalidInput(
                f"Port {ingress.target} cannot be published in ingress mode with endpoint mode dnsrr, which has no "
                "load balancer: use mode=host or endpoint mode vip."
            )


def warnings(wanted: spec.ServiceSpec) -> list[str]:
    return [
        f"port {text(port)} is published: connections to it reach the service and no longer the hosts' own SSH daemon"
        for port in wanted.ports
        if port.published == 22 and port.protocol == spec.PROTOCOL_TCP
    ]


def fill_ports(world: World, service_id: str, wanted: spec.ServiceSpec, before: Iterable[spec.Port]) -> None:
    """Picks a published port where none is given: the one it had `before`, else the lowest free one of the range.

    PreconditionFailed when none is free.
    """
    taken = {key for key, _, _ in _published(world, service_id)}
    taken.update((port.protocol, port.published) for port in wanted.ports if port.published)
    had = {(port.protocol, port.mode, port.target): port.published for port in before}
    for port in wanted.ports:
        if port.published:
            continue
        kept = had.pop((port.protocol, port.mode, port.target), 0)
        if kept and (port.protocol, kept) not in taken:
            port.published = kept
        else:
            free = (n for n in range(FIRST_FREE, LAST_FREE + 1) if (port.protocol, n) not in taken)
            port.published = next(free, 0)
        if not port.published:
            raise PreconditionFailed(
                f"All ports from {FIRST_FREE} to {LAST_FREE} are published: name one for target {port.target}."
            )
        taken.add((port.protocol, port.published))


def check_conflicts(world: World, service_id: str, wanted: spec.ServiceSpec) -> None:
    """AlreadyExists, with the service's name, when another one has a port."""
    others: dict[Key, list[tuple[int, str]]] = {}
    for key, mode, whose in _published(world, service_id):
        others.setdefault(key, []).append((mode, whose))
    for port in wanted.ports:
        for mode, whose in others.get((port.protocol, port.published), ()):
            if spec.PUBLISH_MODE_INGRESS in (mode, port.mode):
                kind = "ingress" if mode == spec.PUBLISH_MODE_INGRESS else "host"
                raise AlreadyExists(f"Port {text(port)} is published by {whose} already, in {kind} mode.")


def _published(world: World, service_id: str) -> Iterable[tuple[Key, int, str]]:
    """((protocol, port), mode, whose it is) of every other service. One that is being removed has its ports until its
    last task is gone: until then redirects lead away from them. One whose rollout may still go back keeps those that it
    would go back to."""
    for service in world.services.values():
        if service.id == service_id:
            continue
        whose = f"service {service.spec.name}" + (" (which is being removed)" if service.removing else "")
        for port in service.spec.ports:
            yield (port.protocol, port.published), port.mode, whose
        rollout = world.rollouts.get(service.rollout_id)
        if rollout is not None and rollout.state in _MAY_GO_BACK and service.HasField("previous_spec"):
            for port in service.previous_spec.ports:
                yield (port.protocol, port.published), port.mode, f"{whose} (which may still be rolled back to it)"
