"""What an agent that has started again makes of a task that was in the middle of something."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.agent.tasks.build import make_task

from pyswarm_agent.interfaces import ContainerState
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.adopt import adopt
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.machine import KILL_AGAIN, handle
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
    assert handle(life, ev.TimerFired(NOW + 4.9), NOW + 4.9) == (life, ())
    _, todo = handle(life, ev.TimerFired(NOW + 5.0), NOW + 5.0)
    assert ev.Signal("KILL") in todo


@pytest.mark.parametrize(("phase", "longest"), [(Phase.DRAINING, 10), (Phase.STOPPING, 5), (Phase.KILLING, KILL_AGAIN)])
def test_nothing_waits_for_a_wall_clock_that_was_set_back(phase: Phase, longest: float) -> None:
    life, _ = adopt(replace(stopping(NOW + 3600), phase=phase), RUNS, NOW)
    assert life.deadline == NOW + longest


def test_what_was_left_of_a_drain_is_left() -> None:
    life, todo = adopt(replace(stopping(NOW + 3), phase=Phase.DRAINING), RUNS, NOW)
    assert life.deadline == NOW + 3 and ev.WatchDrain(NOW + 3) in todo


def test_what_ran_before_a_reboot_runs_no_more_whatever_is_on_the_disk() -> None:
    life, todo = adopt(stopping(NOW + 3), RUNS, NOW, rebooted=True)
    assert life.phase is Phase.CLEANING and ev.WatchExit() not in todo


@pytest.mark.parametrize("rebooted", [True, False])
def test_what_ends_with_its_host_says_so(rebooted: bool) -> None:
    life = Life(make_task(), Phase.RUNNING, pb.TaskStatus(state=pb.TASK_STATE_RUNNING), started=True, served=True)
    life, _ = adopt(life, None, NOW, rebooted=rebooted)
    assert life.status.state == pb.TASK_STATE_FAILED
    assert life.status.ended_with_host == rebooted
    assert life.status.error.startswith("its host was restarted" if rebooted else "its container is gone")


def test_a_start_that_may_have_ended_with_its_host_says_so() -> None:
    life = Life(make_task(), Phase.READY, pb.TaskStatus(state=pb.TASK_STATE_READY), may_start=True)
    life, _ = adopt(life, None, NOW, rebooted=True)
    assert life.status.state == pb.TASK_STATE_FAILED and life.status.ended_with_host


def test_what_was_asked_to_stop_has_stopped_when_its_host_restarts() -> None:
    life, _ = adopt(stopping(NOW + 3), None, NOW, rebooted=True)
    assert life.status.state == pb.TASK_STATE_SHUTDOWN and not life.status.ended_with_host
