"""Following a rollout to its end, through lost connections and changes of leader."""

from __future__ import annotations

import contextlib
import time

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.output.tasks import hostnames, name
from pyswarm_cli.progress import outcome
from pyswarm_cli.progress.screen import Screen
from pyswarm_cli.progress.view import finished, picture
from pyswarm_core.errors import NotFound, PyswarmError
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb

PATIENCE = 60.0  # seconds without any manager: a rollout outlives the loss of all of them for longer than that
GONE = 3.0  # seconds of "there is no such thing" after which that is believed
RETRY = 0.2  # seconds
LAST_LINES = 10


class Memory:
    """What was seen of tasks on the way: at the end the ones that failed may be gone from the view."""

    def __init__(self) -> None:
        self.tasks: dict[str, pb.Task] = {}
        self.waiting: dict[str, str] = {}  # task's name → why it could not be placed, last seen
        self.hosts: dict[str, str] = {}

    def keep(self, view: control.RolloutView) -> None:
        self.hosts.update(hostnames(view.nodes))
        for task in view.tasks:
            if task.status.error or task.status.last_lines:
                self.tasks[task.id] = task
            own = name(task)
            if task.status.state <= pb.TASK_STATE_PENDING and task.status.message:
                self.waiting[own] = task.status.message
            elif pb.TASK_STATE_ASSIGNED <= task.status.state <= pb.TASK_STATE_RUNNING and not view.rollout.generation:
                self.waiting.pop(own, None)


def follow(cluster: Cluster, rollout: pb.Rollout, screen: Screen) -> int:
    """Returns the exit code; 0, or everything worth saying has been printed. Raises Interrupted on Ctrl-C."""
    try:
        ended, memory = _watch(cluster, rollout, screen)
    except KeyboardInterrupt:
        raise exits.Interrupted(
            f"interrupted; the rollout of service {rollout.service_name} goes on: follow it with "
            f"'pyswarm service watch {rollout.service_name}'"
        ) from None
    screen.say(outcome.verdict(ended))
    screen.say(outcome.receipt(ended))
    if sentence := outcome.sentence(ended):
        click.echo(f"pyswarm: {sentence}", err=True)
        for line in _evidence(cluster, ended, memory):
            click.echo(line, err=True)
    return outcome.exit_code(ended)


def _watch(cluster: Cluster, rollout: pb.Rollout, screen: Screen) -> tuple[pb.Rollout, Memory]:
    memory, answered = Memory(), time.monotonic()
    gone_since = 0.0
    request = control.WatchRolloutRequest(rollout_id=rollout.id)
    while True:
        try:
            for view in cluster.stream(lambda stub: stub.WatchRollout, request):
                answered, gone_since = time.monotonic(), 0.0
                memory.keep(view)
                screen.show(picture(view))
                if finished(view.rollout):
                    return view.rollout, memory
            # It ended early: the manager is going away, or the service is.
            answered = time.monotonic()
            cluster.read(lambda stub: stub.GetService, control.Ref(ref=rollout.service_id))
            time.sleep(RETRY)
        except NotFound:
            # Another manager may not have heard of it yet.
            answered = time.monotonic()
            gone_since = gone_since or answered
            if answered - gone_since > GONE:
                raise PyswarmError(f"service {rollout.service_name} was removed before the rollout had ended") from None
            time.sleep(RETRY)
        except exits.ClusterUnreachable as error:
            if time.monotonic() - answered > PATIENCE:
                raise exits.ClusterUnreachable(
                    f"{str(error).rstrip('.')}; the rollout of service {rollout.service_name} goes on without this "
                    "command"
                ) from None
            screen.say("the manager does not answer; the rollout goes on, looking for another one")


def _evidence(cluster: Cluster, ended: pb.Rollout, memory: Memory) -> list[str]:
    """Why tasks could not be placed; what the task that failed had printed."""
    lines = []
    if ended.deadline_passed:
        untold = {own: why for own, why in memory.waiting.items() if why.rstrip(".") not in ended.reason}
        lines = [f"{own}: {why}" for own, why in sorted(untold.items())]
    task = _failed_task(cluster, ended, memory)
    if task is None:
        return lines
    if task.status.error and task.status.error.rstrip(".") not in ended.reason:
        lines.append(f"{name(task)}: {task.status.error}")
    printed = list(task.status.last_lines)[-LAST_LINES:]
    if printed:
        where = memory.hosts.get(task.node_id, task.node_id)
        lines.append(f"last lines of {name(task)}{f' on {where}' if where else ''}:")
        lines += [f"    {line}" for line in printed]
    return lines


def _failed_task(cluster: Cluster, ended: pb.Rollout, memory: Memory) -> pb.Task | None:
    """The one that the rollout names, else the last one that was seen to fail in its time."""
    if ended.failed_task_id and ended.failed_task_id not in memory.tasks:
        request = control.ListTasksRequest(services=[ended.service_id], history=True)
        with contextlib.suppress(PyswarmError):
            answer = cluster.read(lambda stub: stub.ListTasks, request)
            memory.hosts.update(hostnames(answer.nodes))
            memory.tasks.update({task.id: task for task in answer.tasks})
    if ended.failed_task_id in memory.tasks:
        return memory.tasks[ended.failed_task_id]
    recent = [t for t in memory.tasks.values() if t.status.error and t.created_at >= ended.started_at]
    return max(recent, key=lambda task: task.status.at, default=None)
