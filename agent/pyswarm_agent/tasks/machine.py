"""The machine of one task: (life, event, now) → (life, instructions). Pure: no clock, no file, no asyncio.

What holds whatever comes in whatever order: states only advance; a task is started at most once, and only after the
journal on the disk says that it may be; a task that may still be sent connections is stopped only when it was released
(or the manager does not know it any more); whatever was begun is cleaned up. An event that comes too late or out of
turn changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks import sentences
from pyswarm_agent.tasks.life import Life, Phase, orders_of
from pyswarm_core.v1 import objects_pb2 as pb

PREPARE_DELAYS = (0.5, 2.0)  # seconds before the second and third attempt; then the task is rejected
CLEAN_DELAY_MAX = 30.0
CONTAINER_GONE = "its container is gone: the host restarted, or somebody removed it"
HOST_RESTARTED = "its host was restarted"
KILL_AGAIN = 10.0  # a process in an uninterruptible wait outlives a SIGKILL: ask again

Step = tuple[Life, tuple[ev.Instruction, ...]]
_Moved = tuple[Life, list[ev.Instruction]]

_LAST_WORDS: dict[int, str] = {
    pb.TASK_STATE_COMPLETE: "finished",
    pb.TASK_STATE_SHUTDOWN: "stopped",
    pb.TASK_STATE_FAILED: "failed",
    pb.TASK_STATE_REJECTED: "could not be prepared",
}
_UNBORN = (Phase.PULLING, Phase.PREPARING, Phase.READY)
_ALIVE = (Phase.STARTING, Phase.PROBING, Phase.RUNNING, Phase.DRAINING, Phase.STOPPING, Phase.KILLING)


def begin(task: pb.Task, now: float) -> Step:
    """A task that this host hears of for the first time (its journal, too, has never heard of it)."""
    status = pb.TaskStatus(state=pb.TASK_STATE_ACCEPTED, at=now, message="accepted")
    status.timings.accepted_at = now
    life = Life(task=orders_of(task), phase=Phase.PULLING, status=status)
    stored = task.status
    if stored.state >= pb.TASK_STATE_COMPLETE:
        done = replace(life, phase=Phase.DONE, status=stored)
        return done, (ev.Journal(),)
    if stored.state >= pb.TASK_STATE_STARTING:
        # It may have run already, before this host lost its journal: it must not be started a second time.
        life, todo = _end(life, now, pb.TASK_STATE_FAILED, "the host has lost its record of this task")
        return life, _complete(None, life, todo)
    life = life.says(now, pb.TASK_STATE_PREPARING, message="looking for the image")
    life, todo = _steer(life, [ev.Pull()], now)
    return life, _complete(None, life, todo)


def handle(life: Life, event: ev.Event, now: float) -> Step:
    """The next life, and what is to be done, in this order. Nothing changed: the same life, and no instructions."""
    after, todo = _react(life, event, now)
    after, todo = _steer(after, todo, now)
    return after, _complete(life, after, todo)


def is_untold(life: Life) -> bool:
    """SHUTDOWN means that nothing is left: it is told when the task is cleaned up, or that does not work at once.
    Of an exclusive task every end means that, and nothing else will do: another one may start on that word."""
    if life.task.spec.exclusive:
        return life.phase is Phase.CLEANING
    return life.phase is Phase.CLEANING and life.status.state == pb.TASK_STATE_SHUTDOWN and not life.attempts


def _complete(before: Life | None, after: Life, todo: list[ev.Instruction]) -> tuple[ev.Instruction, ...]:
    """What changed is journalled first, then told, then acted upon."""
    head: list[ev.Instruction] = []
    if after != before and after.phase is not Phase.FORGOTTEN:
        head.append(ev.Journal(durable=any(isinstance(i, ev.Start) for i in todo)))
        if _is_news(before, after):
            head.append(ev.Report())
    return (*head, *todo)


def _is_news(before: Life | None, after: Life) -> bool:
    if after.gone:
        return False  # nobody wants to know
    if is_untold(after):
        return False
    if before is None or after.status != before.status:
        return True
    is_held_back = after.status.state == pb.TASK_STATE_SHUTDOWN or after.task.spec.exclusive
    return before.phase is Phase.CLEANING and after.phase is Phase.DONE and is_held_back


def _steer(life: Life, todo: list[ev.Instruction], now: float) -> _Moved:
    """Moves on where orders and phase together say so. What it would start anew is not started when it must stop."""
    if life.phase in _UNBORN and life.unwanted:
        return _end(life, now, pb.TASK_STATE_SHUTDOWN)
    if life.phase is Phase.READY and life.task.desired_state == pb.TASK_STATE_RUNNING:
        life = replace(life.enter(Phase.STARTING), started=True)
        life = life.says(now, pb.TASK_STATE_STARTING, message="starting")
        return life, [*todo, ev.Start()]
    if life.phase is Phase.PROBING and life.may_stop:
        return _stop(life, todo, now)
    if life.phase is Phase.RUNNING and life.may_stop:
        life = life.enter(Phase.DRAINING, deadline=now + life.drain_timeout)
        life = life.says(now, message="waits for its connections to end")
        return life, [*todo, ev.StopProbing(), ev.WatchDrain(life.deadline)]
    if life.phase is Phase.DONE and life.gone:
        return replace(life, phase=Phase.FORGOTTEN), [*todo, ev.Forget()]
    return life, todo


def _react(life: Life, event: ev.Event, now: float) -> _Moved:
    phase = life.phase
    match event:
        case ev.Ordered(task=task, gone=gone):
            return _ordered(life, task, gone), []
        case ev.Progress(message=message) if phase in (Phase.PULLING, Phase.PREPARING):
            return life.says(now, message=message), []
        case ev.Pulled(probe=probe, image_id=image_id, listens=listens) if phase is Phase.PULLING:
            life = replace(life.enter(Phase.PREPARING), probe=probe, image_id=image_id, listens=listens)
            may_start = life.task.desired_state == pb.TASK_STATE_RUNNING
            life = replace(life, stop_signal=sentences.signal_name(event.stop_signal), may_start=may_start)
            status = life.edit()
            status.message = "preparing the container"
            status.timings.image_at = now
            return replace(life, status=status), [ev.Prepare()]
        case ev.Prepared(pid=pid) if phase is Phase.PREPARING:
            life = life.enter(Phase.READY).says(now, pb.TASK_STATE_READY, message="ready to start")
            status = life.edit()
            status.container_id, status.pid, status.timings.prepared_at = life.id, pid, now
            return replace(life, status=status), []
        case ev.PrepareFailed(sentence=sentence, final=final) if phase in (Phase.PULLING, Phase.PREPARING):
            return _prepare_failed(life, sentence, final, now)
        case ev.Started(at=at) if phase is Phase.STARTING:
            return _started(life, at or now, now)
        case ev.StartFailed() if phase is Phase.STARTING and life.unwanted:
            return _end(life, now, pb.TASK_STATE_SHUTDOWN)
        case ev.StartFailed(sentence=sentence) if phase is Phase.STARTING:
            return _end(life, now, pb.TASK_STATE_FAILED, sentence)
        case ev.Settled(missing=missing) if phase is Phase.PROBING and life.probe is None:
            return _settled(life, missing, now), []
        case ev.HealthChanged() if phase in (Phase.PROBING, Phase.RUNNING):
            return _health_changed(life, event, now)
        case ev.Exited() if phase in _ALIVE:
            return _exited(life, event, now)
        case ev.Lapsed() if phase in (Phase.PROBING, Phase.RUNNING, Phase.DRAINING):
            # Nobody can release it, and another may soon run in its place.
            return _stop(replace(life, failure="" if life.unwanted else sentences.LAPSED), [], now)
        case ev.Redirected(at=at) if not life.is_over and not life.status.drain.redirected_at:
            status = life.edit()
            status.drain.redirected_at = at
            return replace(life, status=status), []
        case ev.Drained(sample=sample) | ev.DrainTimedOut(sample=sample) if phase is Phase.DRAINING:
            return _drained(life, sample, now)
        case ev.TimerFired(at=at) if 0 < life.deadline <= at:
            return _timer_fired(life, now)
        case ev.Cleaned() if phase is Phase.CLEANING:
            return life.enter(Phase.DONE).says(now, message=_LAST_WORDS[life.status.state]), []
        case ev.CleanFailed(sentence=sentence) if phase is Phase.CLEANING:
            return _clean_failed(life, sentence, now)
    return life, []


def _ordered(life: Life, task: pb.Task | None, gone: bool) -> Life:
    """A desired state never goes back, and a release is never taken back, whatever an old message says."""
    if gone or task is None:
        return replace(life, gone=life.gone or gone)
    orders = orders_of(task)
    orders.desired_state = max(orders.desired_state, life.task.desired_state)
    orders.released = orders.released or life.task.released
    if task.status.state == pb.TASK_STATE_ORPHANED:
        # Given up while this host was away: nobody sends it anything, and nobody waits for it.
        orders.desired_state = max(orders.desired_state, pb.TASK_STATE_SHUTDOWN)
        orders.released = True
    return life if orders == life.task else replace(life, task=orders)


def _prepare_failed(life: Life, sentence: str, final: bool, now: float) -> _Moved:
    if final or life.attempts >= len(PREPARE_DELAYS):
        return _end(life, now, pb.TASK_STATE_REJECTED, sentence)
    at = now + PREPARE_DELAYS[life.attempts]
    life = replace(life, attempts=life.attempts + 1, deadline=at).says(now, message=f"trying again: {sentence}")
    return life, [ev.ArmTimer(at)]


def _started(life: Life, at: float, now: float) -> _Moved:
    status = life.edit()
    status.timings.started_at = at
    if life.probe is not None:
        status.health, status.health_at, status.message = pb.HEALTH_STARTING, now, "waits for its probe to pass"
        probing = replace(life.enter(Phase.PROBING), status=status)
        return probing, [ev.WatchExit(), ev.StartProbing(life.probe, at, pb.HEALTH_STARTING)]
    if life.listens.ports:
        status.message = f"waits until it listens on {life.listens.awaited()}"
    settling = replace(life.enter(Phase.PROBING, deadline=life.listens.until(at)), status=status)
    return settling, [ev.WatchExit(), ev.AwaitPorts(life.listens, settling.deadline)]


def _settled(life: Life, missing: tuple[int, ...], now: float) -> Life:
    status = life.edit()
    status.timings.healthy_at = now
    message = f"running, but does not listen on {life.listens.lacking(missing)} yet" if missing else "running"
    return _serves(replace(life, status=status), now, message)


def _serves(life: Life, now: float, message: str = "running") -> Life:
    life = replace(life.enter(Phase.RUNNING), served=True)
    return life.says(now, pb.TASK_STATE_RUNNING, message=message)


def _health_changed(life: Life, event: ev.HealthChanged, now: float) -> _Moved:
    status = life.edit()
    status.health, status.health_at = event.health, now
    if life.phase is Phase.RUNNING:
        status.message = "running"
        if event.health == pb.HEALTH_UNHEALTHY:
            status.message = f"unhealthy: {event.output}" if event.output else "unhealthy"
        return replace(life, status=status), []
    if event.health == pb.HEALTH_HEALTHY:
        status.timings.healthy_at = now
        return _serves(replace(life, status=status), now), []
    if event.health == pb.HEALTH_UNHEALTHY:
        why = f"its probe never passed: {event.output}" if event.output else "its probe never passed"
        return _stop(replace(life, status=status, failure=why), [], now)
    return replace(life, status=status), []


def _stop(life: Life, todo: list[ev.Instruction], now: float) -> _Moved:
    """Nothing is sent to it any more: the stop signal, and the time to obey it."""
    life = life.enter(Phase.STOPPING, deadline=now + life.stop_grace)
    life = life.says(now, message=f"stopping: {life.failure}" if life.failure else "stopping")
    return life, [*todo, ev.StopProbing(), ev.Signal(life.stop_signal), ev.ArmTimer(life.deadline)]


def _drained(life: Life, sample: ev.DrainSample, now: float) -> _Moved:
    status = life.edit()
    status.timings.drained_at = now
    status.drain.open_at_stop, status.drain.late_connections = sample.open, sample.late
    status.drain.resets = sample.resets
    return _stop(replace(life, status=status), [], now)


def _timer_fired(life: Life, now: float) -> _Moved:
    match life.phase:
        case Phase.PULLING:
            return replace(life, deadline=0.0), [ev.Pull()]
        case Phase.PREPARING:
            return replace(life, deadline=0.0), [ev.Prepare()]
        case Phase.STOPPING | Phase.KILLING:
            life = life.enter(Phase.KILLING, deadline=now + KILL_AGAIN)
            return life, [ev.Signal("KILL"), ev.ArmTimer(life.deadline)]
        case Phase.CLEANING:
            return replace(life, deadline=0.0), [ev.Clean()]
    return life, []


def _exited(life: Life, event: ev.Exited, now: float) -> _Moved:
    end = event.exit
    asked = life.phase in (Phase.STOPPING, Phase.KILLING) and not life.failure
    status = life.edit()
    status.timings.stopped_at = end.at if end is not None else now
    if end is not None:
        status.exit_code, status.oom = end.code, end.oom
    if event.sample is not None:
        status.drain.late_connections = max(status.drain.late_connections, event.sample.late)
        status.drain.resets = max(status.drain.resets, event.sample.resets)
    if not asked and event.last_lines:
        status.last_lines[:] = event.last_lines
    life = replace(life, status=status)
    if asked:
        return _end(life, now, pb.TASK_STATE_SHUTDOWN)
    if life.failure:
        return _end(life, now, pb.TASK_STATE_FAILED, life.failure)
    if event.with_host:
        status.ended_with_host = True
        return _end(life, now, pb.TASK_STATE_FAILED, HOST_RESTARTED)
    if end is None:
        return _end(life, now, pb.TASK_STATE_FAILED, CONTAINER_GONE)
    if end.code == 0 and not end.oom:
        return _end(life, now, pb.TASK_STATE_COMPLETE)
    return _end(life, now, pb.TASK_STATE_FAILED, sentences.ending(end, life.task.spec.resources.limit_memory))


def _end(life: Life, now: float, state: pb.TaskState.ValueType, error: str = "") -> _Moved:
    bury = life.phase in (Phase.RUNNING, Phase.DRAINING) or (bool(life.failure) and life.served)
    life = life.enter(Phase.CLEANING).says(now, state, message=_LAST_WORDS[state], error=error)
    return life, [ev.StopProbing(), ev.Clean(bury)]


def _clean_failed(life: Life, sentence: str, now: float) -> _Moved:
    at = now + min(0.5 * 2.0**life.attempts, CLEAN_DELAY_MAX)
    life = replace(life, attempts=min(life.attempts + 1, 10), deadline=at)
    return life.says(now, message=f"not cleaned up yet: {sentence}"), [ev.ArmTimer(at)]
