"""Is a service's spec possible? What can be told from the spec alone; conflicts with others are the admission's."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.container import check_container
from pyswarm_manager.api.names import check_alias, check_labels, check_name
from pyswarm_manager.api.numbers import check_duration, check_policy, check_resources, check_restart
from pyswarm_manager.api.ports import check_ports
from pyswarm_manager.scheduler.constraints import parse
from pyswarm_manager.scheduler.spread import parse_preference

MAX_REPLICAS = 10_000
MAX_SPEC_BYTES = 500_000  # it is stored twice in a service, and once in each task
MAX_LOG_FILES = 1_000
LEAST_LOG_SIZE = 4096
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")


def check_service(wanted: spec.ServiceSpec) -> None:
    """`wanted` is complete (`defaults.complete`). InvalidInput: the first thing that is wrong, in one sentence."""
    check_name("service", wanted.name)
    check_labels("label", wanted.labels)
    check_replicas(wanted)
    if wanted.endpoint_mode not in spec.EndpointMode.values():
        raise InvalidInput("The endpoint mode must be vip or dnsrr.")
    check_ports(wanted)
    check_policy("update", wanted.update)
    check_policy("rollback", wanted.rollback)
    _check_task(wanted)
    if wanted.ByteSize() > MAX_SPEC_BYTES:
        raise InvalidInput(
            f"The service's spec has {wanted.ByteSize()} bytes, and {MAX_SPEC_BYTES} are possible at most: put large "
            "contents into a volume or the image."
        )


def check_replicas(wanted: spec.ServiceSpec) -> None:
    if wanted.mode not in spec.ServiceMode.values():
        raise InvalidInput("The mode must be replicated or global.")
    if wanted.mode == spec.SERVICE_MODE_GLOBAL:
        if wanted.replicas:
            raise InvalidInput("A global service has no number of replicas: it runs once on each node.")
        if wanted.task.exclusive:
            raise InvalidInput("A global service has one task on each node: exclusive is for replicated ones.")
        if wanted.task.placement.max_per_node:
            raise InvalidInput("A global service runs once on each node: max replicas per node is for replicated ones.")
    if wanted.replicas > MAX_REPLICAS:
        raise InvalidInput(f"{wanted.replicas} replicas are too many: at most {MAX_REPLICAS} are possible.")


def _check_task(wanted: spec.ServiceSpec) -> None:
    task = wanted.task
    if task.container.digest and not _DIGEST.fullmatch(task.container.digest):
        raise InvalidInput(f"The image digest {task.container.digest!r} is not valid.")
    check_container(task.container)
    check_resources(task.resources)
    check_restart(task.restart)
    check_duration("The drain timeout", task.drain_timeout)
    for text in task.placement.constraints:
        parse(text)
    for text in task.placement.preferences:
        parse_preference(text)
    if task.placement.max_per_node > MAX_REPLICAS:
        raise InvalidInput(f"Max replicas per node must be at most {MAX_REPLICAS}.")
    for attachment in task.networks:
        for alias in attachment.aliases:
            check_alias(alias)
    if task.log.max_size < LEAST_LOG_SIZE:
        raise InvalidInput(f"A log file of {task.log.max_size} bytes is too small: give max-size 4k or more.")
    if task.log.max_file > MAX_LOG_FILES:
        raise InvalidInput(f"{task.log.max_file} log files are too many: at most {MAX_LOG_FILES} are possible.")
