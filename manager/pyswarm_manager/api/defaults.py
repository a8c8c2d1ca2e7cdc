"""The defaults of a service's spec, filled in before it is stored, so that nobody after the API has to know them."""

from __future__ import annotations

from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.images import parse_reference
from pyswarm_manager.api.linux import capability, stop_signal
from pyswarm_manager.api.mounts import complete_mounts

DRAIN_TIMEOUT = 10.0
STOP_GRACE = 10.0
RESTART_DELAY = 1.0
MONITOR = 5.0
DEADLINE = 600.0
PROBE_INTERVAL = 30.0
PROBE_TIMEOUT = 30.0
PROBE_RETRIES = 3
LOG_MAX_SIZE = 10_000_000
LOG_MAX_FILE = 3


def complete(wanted: spec.ServiceSpec) -> None:
    """Changes `wanted`. InvalidInput when an image, signal or capability has no such form. Networks and ports need the
    world: the admission fills those in."""
    task = wanted.task
    if not task.HasField("drain_timeout"):
        task.drain_timeout = DRAIN_TIMEOUT
    if not task.restart.HasField("delay"):
        task.restart.delay = RESTART_DELAY
    task.log.max_size = task.log.max_size or LOG_MAX_SIZE
    task.log.max_file = task.log.max_file or LOG_MAX_FILE
    # The message fields that are empty but there, and those that are not, must compare as equal.
    task.resources.SetInParent()
    task.placement.SetInParent()
    task.placement.constraints[:] = [text.strip() for text in task.placement.constraints]
    task.placement.preferences[:] = [text.strip() for text in task.placement.preferences]
    _container(task.container)
    _policy(wanted.update, given=wanted.HasField("update"))
    _policy(wanted.rollback, given=wanted.HasField("rollback"))
    if wanted.rollback.failure_action == spec.FAILURE_ACTION_ROLLBACK:
        # A rollback cannot be rolled back: its failures pause it unless they are to be ignored.
        wanted.rollback.failure_action = spec.FAILURE_ACTION_PAUSE


def _container(container: spec.ContainerSpec) -> None:
    reference = parse_reference(container.image)
    container.image = reference.image
    container.digest = reference.digest or container.digest
    if not container.HasField("stop_grace"):
        container.stop_grace = STOP_GRACE
    if container.stop_signal:
        container.stop_signal = stop_signal(container.stop_signal)
    container.cap_add[:] = dict.fromkeys(capability(name) for name in container.cap_add)
    container.cap_drop[:] = dict.fromkeys(capability(name) for name in container.cap_drop)
    complete_mounts(container.mounts)
    if container.HasField("probe") and not container.probe.disabled:
        probe = container.probe
        probe.interval = probe.interval or PROBE_INTERVAL
        probe.timeout = probe.timeout or PROBE_TIMEOUT
        probe.retries = probe.retries or PROBE_RETRIES
        if probe.WhichOneof("check") == "http" and not probe.http.path.startswith("/"):
            probe.http.path = f"/{probe.http.path}"


def _policy(policy: spec.UpdatePolicy, *, given: bool) -> None:
    """Where a policy is given, 0 is a value of parallelism (all at once), delay and ratio."""
    policy.SetInParent()
    if not given:
        policy.parallelism = 1
    policy.monitor = policy.monitor or MONITOR
    policy.deadline = policy.deadline or DEADLINE


def force_order(wanted: spec.ServiceSpec) -> list[str]:
    """Copies the host-mode ports into the task's spec and, where they force it, makes the order stop-first: the old
    task has to give the port up before the new one can have it. Returns the warning that says so."""
    del wanted.task.host_ports[:]
    wanted.task.host_ports.extend(port for port in wanted.ports if port.mode == spec.PUBLISH_MODE_HOST)
    if not wanted.task.host_ports and not wanted.task.exclusive:
        return []
    policies = (wanted.update, wanted.rollback)
    forced = [policy for policy in policies if policy.order != spec.UPDATE_ORDER_STOP_FIRST]
    for policy in forced:
        policy.order = spec.UPDATE_ORDER_STOP_FIRST
    if not wanted.task.host_ports:
        return []  # who asks for an exclusive service has asked for just that
    port = wanted.task.host_ports[0]
    return (
        [f"order is stop-first because host port {port.published} can be held by one task of a host only"]
        if forced
        else []
    )
