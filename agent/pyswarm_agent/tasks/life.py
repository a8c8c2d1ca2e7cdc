"""A task's life on this host: the value that the machine moves forward and the journal keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from pyswarm_agent.tasks.listens import NOTHING, Listens
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

DRAIN_TIMEOUT = 10.0  # seconds, where the spec says nothing
STOP_GRACE = 10.0


class Phase(IntEnum):
    """What the agent is at with the task; finer than pb.TaskState.ValueType. It only moves forward."""

    PULLING = 1
    PREPARING = 2
    READY = 3  # waits for the word to start
    STARTING = 4
    PROBING = 5  # runs, but was never healthy yet, or without a probe was not seen to listen
    RUNNING = 6
    DRAINING = 7
    STOPPING = 8  # has its stop signal
    KILLING = 9
    CLEANING = 10
    DONE = 11  # nothing but logs and this record is left; waits to be forgotten
    FORGOTTEN = 12


@dataclass(frozen=True, slots=True)
class Life:
    """The messages in it are never changed in place."""

    task: pb.Task  # as the manager last told it, without its status
    phase: Phase
    status: pb.TaskStatus  # what the manager is told
    gone: bool = False  # the manager does not know the task (any more)
    started: bool = False  # journalled before the container is started: a task starts at most once
    may_start: bool = False  # the same, journalled early, so that the disk need not be waited for then
    failure: str = ""  # why it is being stopped, when nobody asked for that
    probe: spec.Probe | None = None
    stop_signal: str = "TERM"
    deadline: float = 0.0  # of the phase: drain, grace, or the next attempt; unix seconds, 0 = none
    attempts: int = 0  # in this phase
    image_id: str = ""  # "" until it is pulled
    served: bool = False  # was RUNNING: balancers may have it
    listens: Listens = NOTHING  # waited for where there is no probe

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def is_over(self) -> bool:
        """Its end is decided and its container does not run any more."""
        return self.phase >= Phase.CLEANING

    @property
    def died(self) -> bool:
        """It served, and ended without having been told to."""
        return self.is_over and self.served and self.status.state in (pb.TASK_STATE_COMPLETE, pb.TASK_STATE_FAILED)

    @property
    def unwanted(self) -> bool:
        return self.gone or self.task.desired_state >= pb.TASK_STATE_SHUTDOWN

    @property
    def may_stop(self) -> bool:
        """Nobody sends it connections any more. What never served need not be released."""
        task = self.task
        if self.gone or not self.served:
            return self.unwanted
        return self.unwanted and (task.released or (task.desired_state == pb.TASK_STATE_REMOVE and not task.leaving))

    @property
    def drain_timeout(self) -> float:
        s = self.task.spec
        return s.drain_timeout if s.HasField("drain_timeout") else DRAIN_TIMEOUT

    @property
    def stop_grace(self) -> float:
        c = self.task.spec.container
        return c.stop_grace if c.HasField("stop_grace") else STOP_GRACE

    def enter(self, phase: Phase, *, deadline: float = 0.0) -> Life:
        """The next phase, with its attempts counted anew."""
        return replace(self, phase=phase, deadline=deadline, attempts=0)

    def says(
        self,
        now: float,
        state: pb.TaskState.ValueType | None = None,
        *,
        message: str | None = None,
        error: str | None = None,
    ) -> Life:
        """The same life with another status: `state` only ever raises it."""
        status = self.edit()
        if state is not None and state > status.state:
            status.state, status.at = state, now
        if message is not None:
            status.message = message
        if error is not None:
            status.error = error
        return replace(self, status=status)

    def edit(self) -> pb.TaskStatus:
        """A copy of the status, to be changed and put back."""
        copy = pb.TaskStatus()
        copy.CopyFrom(self.status)
        return copy


def orders_of(task: pb.Task) -> pb.Task:
    """The task as the manager told it, without the status, which is the agent's own."""
    copy = pb.Task()
    copy.CopyFrom(task)
    copy.ClearField("status")
    return copy
