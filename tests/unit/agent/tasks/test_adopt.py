"""What an agent that has started again makes of a task that was in the middle of something."""

from __future__ import annotations

from tests.unit.agent.tasks.build import make_task

from pyswarm_agent.interfaces import ContainerState
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.adopt import adopt
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.machine import handle
from pyswarm_core.v1 import objects_pb2 as pb

NOW = 1000.0
RUNS = ContainerState("t1", 77, True, None, 900.0)


def stopping(deadline: float) -> Life:
    task = make_task(desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True, released=True)
    status = pb.TaskStatus(state=pb.TASK_STATE_RUNNING)
    return Life(task, Phase.STOPPING, status, started=True, served=True, deadline=deadline)


def test_a_container_whose_grace_passed_while_no_agent_was_there_has_it_after_the_signal() -> None:
    life, todo = adopt(stopping(NOW - 60), RUNS, NOW)
    assert todo == (ev.WatchExit(), ev.Signal("TERM"), ev.ArmTimer(NOW + 5.0))
    assert handle(life, ev.TimerFired(), NOW + 4.9) == (life, ())
    _, todo = handle(life, ev.TimerFired(), NOW + 5.0)
    assert ev.Signal("KILL") in todo


def test_a_longer_grace_is_kept() -> None:
    life, _ = adopt(stopping(NOW + 30), RUNS, NOW)
    assert life.deadline == NOW + 30
