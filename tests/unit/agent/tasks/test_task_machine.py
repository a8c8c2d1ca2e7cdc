"""The task machine, one story at a time."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.agent.tasks.build import make_task, tcp_probe, told

from pyswarm_agent.interfaces import ContainerExit
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.listens import LONGEST, NOTHING, SURVIVES, Listens
from pyswarm_agent.tasks.machine import begin, handle
from pyswarm_core.v1 import objects_pb2 as pb


class Story:
    """Feeds events at rising times and keeps what came out."""

    def __init__(self, task: pb.Task | None = None) -> None:
        self.now = 100.0
        self.task = task or make_task()
        self.life, self.last = begin(self.task, self.now)
        self.seen: list[ev.Instruction] = list(self.last)

    def tell(self, event: ev.Event, *, after: float = 1.0) -> Story:
        self.now += after
        self.life, self.last = handle(self.life, event, self.now)
        self.seen += self.last
        return self

    def ring(self, *, after: float) -> Story:
        """The timer's time has come."""
        self.now += after
        return self.tell(ev.TimerFired(self.now), after=0.0)

    def order(self, **changes: Any) -> Story:
        self.task = told(self.task, **changes)
        return self.tell(ev.Ordered(self.task))

    def running(self, probe: bool = False) -> Story:
        self.tell(ev.Pulled(tcp_probe() if probe else None, "SIGQUIT")).tell(ev.Prepared(42))
        self.tell(ev.Started(self.now))
        return self if probe else self.tell(ev.Settled())

    @property
    def kinds(self) -> list[str]:
        return [type(i).__name__ for i in self.last]

    @property
    def state(self) -> int:
        return self.life.status.state


def test_a_task_is_pulled_prepared_started_and_runs() -> None:
    story = Story()
    assert story.kinds == ["Journal", "Report", "Pull"]
    assert story.state == pb.TASK_STATE_PREPARING
    story.tell(ev.Pulled())
    assert story.kinds == ["Journal", "Report", "Prepare"]
    story.tell(ev.Prepared(42))
    assert story.last == (ev.Journal(durable=True), ev.Report(), ev.Start())
    assert story.state == pb.TASK_STATE_STARTING and story.life.started
    story.tell(ev.Started(story.now))
    assert story.kinds == ["Journal", "Report", "WatchExit", "AwaitPorts"]
    assert story.last[-1] == ev.AwaitPorts(NOTHING, story.life.status.timings.started_at + SURVIVES)
    assert story.state == pb.TASK_STATE_STARTING, "it may end in a moment"
    story.tell(ev.Settled())
    assert story.kinds == ["Journal", "Report"]
    status = story.life.status
    assert status.state == pb.TASK_STATE_RUNNING and status.health == pb.HEALTH_NONE
    assert status.pid == 42 and status.container_id == "t1"
    t = status.timings
    assert 0 < t.accepted_at < t.image_at < t.prepared_at <= t.started_at < t.healthy_at == story.now


def test_desired_ready_prepares_and_waits() -> None:
    story = Story(make_task(desired_state=pb.TASK_STATE_READY))
    story.tell(ev.Pulled()).tell(ev.Prepared(42))
    assert story.life.phase is Phase.READY and "Start" not in story.kinds and not story.life.started
    story.order(desired_state=pb.TASK_STATE_RUNNING)
    assert story.kinds == ["Journal", "Report", "Start"]


def test_a_serving_task_is_stopped_only_when_released() -> None:
    story = Story().running()
    story.order(desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True)
    assert story.kinds == ["Journal"] and story.life.phase is Phase.RUNNING
    story.order(released=True)
    assert story.kinds == ["Journal", "Report", "StopProbing", "WatchDrain"]
    assert story.last[-1] == ev.WatchDrain(story.now + 10.0)
    story.tell(ev.Redirected(story.now))
    story.tell(ev.Drained(ev.DrainSample(open=0, late=0, resets=2)))
    assert story.kinds == ["Journal", "Report", "StopProbing", "Signal", "ArmTimer"]
    assert ev.Signal("QUIT") in story.last and ev.ArmTimer(story.now + 5.0) in story.last
    story.tell(ev.Exited(ContainerExit(143, False, story.now)))
    assert story.kinds == ["Journal", "StopProbing", "Clean"], "SHUTDOWN is told when nothing is left"
    story.tell(ev.Cleaned())
    assert story.kinds == ["Journal", "Report"]
    status = story.life.status
    assert status.state == pb.TASK_STATE_SHUTDOWN and not status.error and status.exit_code == 143
    assert status.drain.resets == 2 and status.drain.redirected_at and status.timings.drained_at
    assert status.timings.stopped_at >= status.timings.drained_at
    story.tell(ev.Ordered(None, gone=True))
    assert story.last == (ev.Forget(),) and story.life.phase is Phase.FORGOTTEN


def test_connections_that_never_end_are_counted_and_the_task_stopped() -> None:
    story = Story().running().order(desired_state=pb.TASK_STATE_SHUTDOWN, released=True)
    story.tell(ev.DrainTimedOut(ev.DrainSample(open=3, late=0, resets=0)), after=10)
    assert "Signal" in story.kinds and story.life.status.drain.open_at_stop == 3


def test_kill_follows_when_the_grace_is_over() -> None:
    story = Story().running().order(desired_state=pb.TASK_STATE_SHUTDOWN, released=True)
    story.tell(ev.Drained(ev.DrainSample()))
    story.ring(after=4.9)
    assert story.kinds == [], "too early: it has its grace"
    story.ring(after=0.1)
    assert ev.Signal("KILL") in story.last and story.life.phase is Phase.KILLING
    story.ring(after=10)
    assert ev.Signal("KILL") in story.last
    story.tell(ev.Exited(ContainerExit(137, False, story.now)))
    assert story.state == pb.TASK_STATE_SHUTDOWN


def test_what_is_in_no_complete_set_is_drained_stopped_and_forgotten_without_a_word() -> None:
    story = Story().running().tell(ev.Ordered(None, gone=True))
    assert story.kinds == ["Journal", "StopProbing", "WatchDrain"]
    story.tell(ev.Drained(ev.DrainSample())).tell(ev.Exited(ContainerExit(0, False, 1.0))).tell(ev.Cleaned())
    assert story.last == (ev.Forget(),)


def test_remove_without_leaving_stops_at_once_and_with_leaving_waits_for_its_release() -> None:
    assert Story().running().order(desired_state=pb.TASK_STATE_REMOVE).life.phase is Phase.DRAINING
    story = Story().running().order(desired_state=pb.TASK_STATE_REMOVE, leaving=True)
    assert story.life.phase is Phase.RUNNING
    assert story.order(released=True).life.phase is Phase.DRAINING


@pytest.mark.parametrize("upto", [0, 1])
def test_a_task_that_never_ran_needs_no_release(upto: int) -> None:
    story = Story(make_task(desired_state=pb.TASK_STATE_READY))
    for event in [ev.Pulled(), ev.Prepared(1)][:upto]:
        story.tell(event)
    story.order(desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True)
    assert ev.Clean() in story.last
    story.tell(ev.Pulled()).tell(ev.Prepared(1))
    assert story.life.phase is Phase.CLEANING, "late results change nothing"
    story.tell(ev.Cleaned())
    assert story.state == pb.TASK_STATE_SHUTDOWN


def test_not_wanted_while_it_starts_is_never_called_running() -> None:
    story = Story().tell(ev.Pulled()).tell(ev.Prepared(1))
    story.order(desired_state=pb.TASK_STATE_SHUTDOWN)
    assert story.kinds == ["Journal"], "the start is under way: its end is awaited"
    story.tell(ev.Started(1.0))
    assert story.kinds == ["Journal", "Report", "WatchExit", "AwaitPorts", "StopProbing", "Signal", "ArmTimer"]
    story.tell(ev.Settled())
    assert story.state == pb.TASK_STATE_STARTING


@pytest.mark.parametrize(
    ("end", "state", "error"),
    [
        (ContainerExit(0, False, 5.0), pb.TASK_STATE_COMPLETE, ""),
        (ContainerExit(3, False, 5.0), pb.TASK_STATE_FAILED, "exited with code 3"),
        (ContainerExit(139, False, 5.0), pb.TASK_STATE_FAILED, "killed by signal SIGSEGV"),
        (
            ContainerExit(137, True, 5.0),
            pb.TASK_STATE_FAILED,
            "killed: it used more than its memory limit of 64.0 MiB",
        ),
        (None, pb.TASK_STATE_FAILED, "its container is gone: the host restarted, or somebody removed it"),
    ],
)
def test_a_task_that_ends_by_itself(end: ContainerExit | None, state: int, error: str) -> None:
    task = make_task()
    task.spec.resources.limit_memory = 64 * 2**20
    story = Story(task).running().tell(ev.Exited(end, ("one", "two")))
    assert story.kinds == ["Journal", "Report", "StopProbing", "Clean"], "told at once: balancers must know"
    assert story.last[-1] == ev.Clean(bury=True)
    status = story.life.status
    assert (status.state, status.error, list(status.last_lines)) == (state, error, ["one", "two"])
    story.tell(ev.Cleaned())
    assert story.kinds == ["Journal", "Report"] or story.kinds == ["Journal"]


def test_without_a_probe_it_runs_only_when_it_listens() -> None:
    story = Story().tell(ev.Pulled(listens=Listens((80, 443), every=True))).tell(ev.Prepared(42))
    story.tell(ev.Started(story.now))
    assert story.last[-1] == ev.AwaitPorts(Listens((80, 443), every=True), story.now - 1 + LONGEST)
    assert story.state == pb.TASK_STATE_STARTING
    assert story.life.status.message == "waits until it listens on ports 80 and 443"
    assert story.tell(ev.Settled()).state == pb.TASK_STATE_RUNNING and story.life.served
    assert story.life.status.message == "running" and story.life.status.health == pb.HEALTH_NONE


def test_one_that_never_listens_is_called_running_all_the_same_and_says_so() -> None:
    story = Story().tell(ev.Pulled(listens=Listens((80, 443), every=True))).tell(ev.Prepared(42))
    story.tell(ev.Started(story.now)).tell(ev.Settled((443,)))
    assert story.state == pb.TASK_STATE_RUNNING
    assert story.life.status.message == "running, but does not listen on port 443 yet"


def test_one_that_ends_before_it_listens_never_served() -> None:
    story = Story().tell(ev.Pulled(listens=Listens((80,)))).tell(ev.Prepared(42)).tell(ev.Started(101.0))
    story.tell(ev.Exited(ContainerExit(3, False, 5.0), ("no configuration",)))
    assert story.kinds == ["Journal", "Report", "StopProbing", "Clean"] and story.last[-1] == ev.Clean(bury=False)
    assert story.state == pb.TASK_STATE_FAILED and not story.life.died
    assert story.tell(ev.Settled()).life.phase is Phase.CLEANING, "too late"


def test_a_probe_decides_alone() -> None:
    story = Story().running(probe=True).tell(ev.Settled())
    assert story.kinds == [] and story.state == pb.TASK_STATE_STARTING


def test_with_a_probe_it_runs_only_when_healthy() -> None:
    story = Story().running(probe=True)
    assert story.kinds == ["Journal", "Report", "WatchExit", "StartProbing"]
    assert story.state == pb.TASK_STATE_STARTING and story.life.status.health == pb.HEALTH_STARTING
    story.tell(ev.HealthChanged(pb.HEALTH_HEALTHY))
    assert story.state == pb.TASK_STATE_RUNNING and story.life.status.timings.healthy_at == story.now


def test_a_probe_that_never_passes_stops_and_fails_the_task() -> None:
    story = Story().running(probe=True).tell(ev.HealthChanged(pb.HEALTH_UNHEALTHY, "connection refused"))
    assert "Signal" in story.kinds and "WatchDrain" not in story.kinds
    story.tell(ev.Exited(ContainerExit(0, False, story.now), ("bye",)))
    status = story.life.status
    assert status.state == pb.TASK_STATE_FAILED and list(status.last_lines) == ["bye"]
    assert status.error == "its probe never passed: connection refused"


def test_unhealthy_is_told_and_the_task_runs_on() -> None:
    story = Story().running(probe=True).tell(ev.HealthChanged(pb.HEALTH_HEALTHY))
    story.tell(ev.HealthChanged(pb.HEALTH_UNHEALTHY, "status 500"))
    assert story.kinds == ["Journal", "Report"] and story.state == pb.TASK_STATE_RUNNING
    assert story.life.status.health == pb.HEALTH_UNHEALTHY and "status 500" in story.life.status.message
    story.tell(ev.HealthChanged(pb.HEALTH_HEALTHY))
    assert story.life.status.health == pb.HEALTH_HEALTHY and story.life.status.message == "running"


def test_a_final_failure_rejects_and_a_passing_one_is_tried_again() -> None:
    story = Story().tell(ev.PrepareFailed("no such tag", final=True))
    assert story.state == pb.TASK_STATE_REJECTED and story.life.status.error == "no such tag"
    assert ev.Clean() in story.last

    story = Story().tell(ev.PrepareFailed("registry is down", final=False))
    assert story.kinds == ["Journal", "Report", "ArmTimer"]
    story.ring(after=0.5)
    assert story.kinds == ["Journal", "Pull"]
    story.tell(ev.PrepareFailed("registry is down", final=False)).ring(after=2.0)
    assert story.kinds == ["Journal", "Pull"]
    story.tell(ev.PrepareFailed("registry is down", final=False))
    assert story.state == pb.TASK_STATE_REJECTED


def test_a_start_that_fails() -> None:
    story = Story().tell(ev.Pulled()).tell(ev.Prepared(1)).tell(ev.StartFailed("no such command"))
    assert story.state == pb.TASK_STATE_FAILED and story.life.status.error == "no such command"
    assert ev.Clean() in story.last


def test_cleaning_is_tried_until_it_works_and_the_end_told_meanwhile() -> None:
    story = Story().running().order(desired_state=pb.TASK_STATE_SHUTDOWN, released=True)
    story.tell(ev.Drained(ev.DrainSample())).tell(ev.Exited(ContainerExit(0, False, 1.0)))
    story.tell(ev.CleanFailed("device is busy"))
    assert story.kinds == ["Journal", "Report", "ArmTimer"] and story.state == pb.TASK_STATE_SHUTDOWN
    assert "device is busy" in story.life.status.message
    story.ring(after=0.5)
    assert story.kinds == ["Journal", "Clean"]
    story.tell(ev.Cleaned())
    assert story.life.phase is Phase.DONE and story.life.status.message == "stopped"


def test_a_task_that_was_given_up_while_the_host_was_away_is_stopped() -> None:
    story = Story().running()
    given_up = told(story.task)
    given_up.status.state = pb.TASK_STATE_ORPHANED
    assert story.tell(ev.Ordered(given_up)).life.phase is Phase.DRAINING


def test_orders_never_go_back() -> None:
    story = Story().running().order(desired_state=pb.TASK_STATE_SHUTDOWN, released=True)
    story.order(desired_state=pb.TASK_STATE_RUNNING, released=False)
    assert story.life.task.released and story.life.task.desired_state == pb.TASK_STATE_SHUTDOWN


def test_a_task_that_may_have_run_before_the_journal_was_lost_is_not_started() -> None:
    task = make_task()
    task.status.state = pb.TASK_STATE_RUNNING
    story = Story(task)
    assert story.state == pb.TASK_STATE_FAILED and "Pull" not in story.kinds and ev.Clean() in story.last
    task.status.state = pb.TASK_STATE_FAILED
    story = Story(task)
    assert story.life.phase is Phase.DONE and story.kinds == ["Journal"]


def test_lives_are_values() -> None:
    story = Story()
    before: Life = story.life
    copy = pb.TaskStatus()
    copy.CopyFrom(before.status)
    story.running().order(desired_state=pb.TASK_STATE_SHUTDOWN)
    assert before.status == copy and before.phase is Phase.PULLING
