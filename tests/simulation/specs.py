"""The specs that the random user asks for. What an image does is the last word of its repository."""

from __future__ import annotations

import random

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

WRITERS = ("db", "jobs")  # services that are exclusive from the beginning
SOUND = ("good", "slow", "hangs")  # these run until they are told to stop
KINDS = (*SOUND, "crash", "fades", "sick", "flaky", "unknown", "done")
_WEIGHTS = (60, 10, 6, 5, 4, 4, 4, 4, 3)


def image(rng: random.Random, *, sound: bool = False) -> str:
    kinds, weights = (SOUND, _WEIGHTS[: len(SOUND)]) if sound else (KINDS, _WEIGHTS)
    return f"registry.sim/{rng.choices(kinds, weights)[0]}:v{rng.randrange(1000)}"


def is_sound(wanted: spec.ServiceSpec) -> bool:
    """Its tasks run for ever, and are started again whatever happens."""
    restart = wanted.task.restart
    if restart.max_attempts or restart.condition != spec.RESTART_CONDITION_ANY:
        return False
    return wanted.task.container.image.rpartition(":")[0].rpartition("/")[2] in SOUND


def is_paused(rollout: pb.Rollout) -> bool:
    return rollout.state == pb.ROLLOUT_STATE_PAUSED


def policy(rng: random.Random) -> spec.UpdatePolicy:
    return spec.UpdatePolicy(
        parallelism=rng.choice((1, 1, 1, 2, 2, 0)),
        delay=rng.choice((0, 0, 0, 2.0)),
        order=rng.choices((spec.UPDATE_ORDER_START_FIRST, spec.UPDATE_ORDER_STOP_FIRST), (7, 3))[0],
        monitor=rng.choice((1.0, 3.0, 5.0)),
        failure_action=rng.choices(
            (spec.FAILURE_ACTION_ROLLBACK, spec.FAILURE_ACTION_PAUSE, spec.FAILURE_ACTION_CONTINUE), (7, 2, 1)
        )[0],
        max_failure_ratio=rng.choice((0.0, 0.0, 0.0, 0.4)),
        deadline=rng.choice((40.0, 90.0, 200.0)),
    )


def restart(rng: random.Random) -> spec.RestartPolicy:
    policy = spec.RestartPolicy(delay=rng.choice((1.0, 2.0)))
    draw = rng.random()
    if draw < 0.08:
        policy.max_attempts, policy.window = 1, rng.choice((0.0, 60.0))
    elif draw < 0.12:
        policy.condition = spec.RESTART_CONDITION_ON_FAILURE
    elif draw < 0.18:
        policy.condition = spec.RESTART_CONDITION_NONE
    return policy


def service(name: str, number: int, networks: list[str], nodes: int, rng: random.Random) -> spec.ServiceSpec:
    """`number`: its place among all, for its published port. Names that begin with g are global services."""
    is_global = name.startswith("g")
    wanted = spec.ServiceSpec(
        name=name,
        mode=spec.SERVICE_MODE_GLOBAL if is_global else spec.SERVICE_MODE_REPLICATED,
        replicas=0 if is_global else rng.choice((1, 2, 3, 3, 4)),
        update=policy(rng),
        rollback=policy(rng),
        task=spec.TaskSpec(
            container=spec.ContainerSpec(image=image(rng), stop_grace=rng.choice((1.0, 3.0, 10.0))),
            restart=restart(rng),
            drain_timeout=rng.choice((0.0, 2.0, 10.0)),
        ),
    )
    task = wanted.task
    if rng.random() < 0.3:
        task.container.env[:] = [f"V={rng.randrange(1000)}"]
    if rng.random() < 0.5:
        probe(task.container, rng)
    draw = rng.random()
    if draw < 0.4:
        wanted.ports.add(target=80, published=8000 + number)
    elif draw < 0.56:
        wanted.ports.add(target=80, published=9000 + number, mode=spec.PUBLISH_MODE_HOST)
        wanted.replicas = min(wanted.replicas, nodes - 2)
    for network in rng.sample(networks, min(len(networks), rng.choice((0, 0, 1, 2)))):
        task.networks.add(network_id=network)
    bound = any(port.mode == spec.PUBLISH_MODE_HOST for port in wanted.ports)
    if rng.random() < 0.15 and not bound:
        task.placement.constraints.append("node.labels.zone==a")
    if rng.random() < 0.1 and not bound and not task.placement.constraints:
        task.placement.max_per_node = 2
    if rng.random() < 0.15:
        task.placement.preferences.append("spread=node.labels.zone")
    if rng.random() < 0.1:
        task.resources.reserve_nano_cpus = 500_000_000
    if rng.random() < 0.1:
        wanted.endpoint_mode = spec.ENDPOINT_MODE_DNSRR
        del wanted.ports[:]
    task.exclusive = not is_global and (name in WRITERS or rng.random() < 0.1)
    return wanted


def probe(container: spec.ContainerSpec, rng: random.Random) -> None:
    container.probe.CopyFrom(
        spec.Probe(
            command=spec.StringList(values=["check"]),
            interval=rng.choice((2.0, 5.0)),
            timeout=2.0,
            retries=rng.choice((2, 3)),
            start_period=rng.choice((0.0, 5.0, 10.0)),
        )
    )


def change(wanted: spec.ServiceSpec, rng: random.Random, *, sound: bool = False) -> None:
    """Another version of the same service."""
    container = wanted.task.container
    container.image = image(rng, sound=sound)
    if sound:
        wanted.update.deadline = 200.0  # a stop-first update with long drains may not end within 40 s
        wanted.task.restart.CopyFrom(spec.RestartPolicy(delay=1.0))
    container.digest = ""
    draw = rng.random()
    if draw < 0.2:
        container.env[:] = [f"V={rng.randrange(1000)}"]
    elif draw < 0.3:
        wanted.update.CopyFrom(policy(rng))
    elif draw < 0.4:
        wanted.rollback.CopyFrom(policy(rng))
    elif draw < 0.5 and wanted.mode == spec.SERVICE_MODE_REPLICATED:
        wanted.replicas = rng.choice((1, 2, 3))
    elif draw < 0.54 and wanted.mode == spec.SERVICE_MODE_REPLICATED:
        wanted.task.exclusive = not wanted.task.exclusive
    elif draw < 0.6:
        container.ClearField("probe")
        if rng.random() < 0.5:
            probe(container, rng)
