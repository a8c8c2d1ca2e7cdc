"""What the runtime is asked for, from a task and its image. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyswarm_agent.interfaces import ContainerRequest, Image
from pyswarm_agent.tasks.templates import Names, expand
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

# As in Docker: a container's host name, where nobody gave it one, is the start of its id.
HOSTNAME_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Here:
    """Of this host, what a container learns of it."""

    node_id: str
    hostname: str
    nameserver: str  # where this agent's DNS answers its tasks
    search: tuple[str, ...] = ()  # the host's search domains, for tasks that have none of their own
    architecture: str = ""


def task_name(task: pb.Task) -> str:
    """web.1; for a global service web.<node id>."""
    return f"{task.service_name}.{task.slot or task.node_id}"


def names_of(task: pb.Task, here: Here) -> Names:
    return Names(
        task_id=task.id,
        task_name=task_name(task),
        slot=task.slot,
        service_id=task.service_id,
        service_name=task.service_name,
        node_id=here.node_id,
        hostname=here.hostname,
        service_labels=dict(task.service_labels),
        platform_architecture=here.architecture,
    )


def container_request(task: pb.Task, image: Image, rootfs: Path, netns: Path, here: Here) -> ContainerRequest:
    """Raises templates.TemplateError."""
    names = names_of(task, here)
    container = spec.ContainerSpec()
    container.CopyFrom(task.spec.container)
    container.env[:] = [expand(e, names, f"the environment variable {e.partition('=')[0]}") for e in container.env]
    container.hostname = expand(container.hostname, names, "the host name") or task.id[:HOSTNAME_LENGTH]
    for mount in container.mounts:
        mount.source = expand(mount.source, names, "a mount's source")
        mount.target = expand(mount.target, names, "a mount's target")
    own = task.addresses[0].address if task.addresses else "127.0.1.1"
    return ContainerRequest(
        task_id=task.id,
        service_name=task.service_name,
        container=container,
        resources=task.spec.resources,
        log=task.spec.log,
        image=image.config,
        rootfs=rootfs,
        netns=netns,
        hostname=container.hostname,
        nameserver=here.nameserver,
        search=tuple(container.dns.search) or here.search,
        hosts=((own, container.hostname), *((h.address, h.hostname) for h in container.hosts)),
        labels={
            **container.labels,
            "pyswarm.task.id": task.id,
            "pyswarm.task.name": names.task_name,
            "pyswarm.service.id": task.service_id,
            "pyswarm.service.name": task.service_name,
            "pyswarm.node.id": here.node_id,
        },
    )


def effective_probe(container: spec.ContainerSpec, image: Image) -> spec.Probe | None:
    """The spec's probe, else the image's; None for none, or one that is switched off."""
    if container.HasField("probe"):
        probe: spec.Probe | None = container.probe
    else:
        probe = image.config.probe
    if probe is None or probe.disabled or probe.WhichOneof("check") is None:
        return None
    return probe


def effective_stop_signal(container: spec.ContainerSpec, image: Image) -> str:
    return container.stop_signal or image.config.stop_signal or "TERM"
