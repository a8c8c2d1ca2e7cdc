"""The agent has started again: what the journal says and what the host has make the task's life go on.

Pure, like the machine. No container is touched by it that should run on."""

from __future__ import annotations

from dataclasses import replace

from pyswarm_agent.interfaces import ContainerState
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.machine import KILL_AGAIN, Step, handle
from pyswarm_core.v1 import objects_pb2 as pb


def adopt(life: Life, container: ContainerState | None, now: float, *, rebooted: bool = False) -> Step:
    """`container` is what the runtime finds on disk, None for nothing. `rebooted`: the host, since the journal was last
    looked at."""
    if life.phase >= Phase.DONE:
        return handle(life, ev.Ordered(None), now)
    if life.phase is Phase.CLEANING:
        return life, (ev.Clean(),)
    if not life.started:
        if life.may_start and rebooted:
            # It may have been started, and the record of that lost with the power.
            return handle(replace(life.enter(Phase.STARTING), started=True), ev.Exited(None, with_host=True), now)
        return _unborn(life, container, now)
    if container is None or rebooted:
        return handle(life, ev.Exited(None, with_host=rebooted), now)
    if container.exit is not None:
        return life, (ev.WatchExit(),)  # returns at once, with the last lines
    if not container.running:
        return _not_started(life, container, now)
    if life.phase is Phase.STARTING:
        return handle(life, ev.Started(container.started_at), now)
    return _running(life, now)


def _unborn(life: Life, container: ContainerState | None, now: float) -> Step:
    """Never started: what is there is used again, and what is missing made (each part is idempotent)."""
    if life.phase is Phase.READY and (container is None or container.exit is not None or not container.pid):
        life = life.enter(Phase.PULLING)
    if life.phase is Phase.READY:
        return handle(life, ev.Ordered(None), now)
    life = life.enter(Phase.PULLING)
    if life.unwanted:
        return handle(life, ev.Ordered(None), now)
    return life, (ev.Pull(),)


def _not_started(life: Life, container: ContainerState, now: float) -> Step:
    """The journal says started, the host says created: the agent was killed in between.

    Starting it is safe: a runtime starts a created container once, and refuses the second time. A pid of 0 means that
    even its first process is gone."""
    if life.phase is Phase.STARTING and container.pid:
        return life, (ev.Journal(durable=True), ev.Start())
    return handle(life, ev.Exited(None), now)


def _running(life: Life, now: float) -> Step:
    watch: list[ev.Instruction] = [ev.WatchExit()]
    if life.phase in (Phase.PROBING, Phase.RUNNING) and life.probe is not None:
        health = life.status.health if life.phase is Phase.RUNNING else pb.HEALTH_STARTING
        watch.append(ev.StartProbing(life.probe, life.status.timings.started_at, health))
    if life.phase is Phase.PROBING and life.probe is None:
        watch.append(ev.AwaitPorts(life.listens, life.deadline))
    # A deadline may be of a wall clock that was set back since.
    if life.phase is Phase.DRAINING:
        life = replace(life, deadline=min(life.deadline, now + life.drain_timeout))
        watch.append(ev.WatchDrain(life.deadline))
    if life.phase is Phase.STOPPING:
        # The signal may not have been sent before the agent ended; a second one does no harm. It has its grace from now
        # on: the old deadline may have passed while nobody was there to send it.
        life = replace(life, deadline=now + life.stop_grace)
        watch += [ev.Signal(life.stop_signal), ev.ArmTimer(life.deadline)]
    if life.phase is Phase.KILLING:
        life = replace(life, deadline=min(life.deadline, now + KILL_AGAIN))
        watch += [ev.Signal("KILL"), ev.ArmTimer(life.deadline)]
    life, more = handle(life, ev.Ordered(None), now)
    return life, (*watch, *more)
