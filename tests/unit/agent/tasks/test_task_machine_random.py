"""Whatever happens in whatever order: the promises of the machine hold.

First with events out of nowhere, then on a small host that carries instructions out, fails at random, and whose agent
is killed at random moments and adopts what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.tasks.build import make_task, tcp_probe, told

from pyswarm_agent.interfaces import ContainerExit, ContainerState
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.adopt import adopt
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.listens import NOTHING, Listens
from pyswarm_agent.tasks.machine import begin, handle
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

DESIRED = [pb.TASK_STATE_READY, pb.TASK_STATE_RUNNING, pb.TASK_STATE_SHUTDOWN, pb.TASK_STATE_REMOVE]
samples = st.builds(ev.DrainSample, st.integers(0, 3), st.integers(0, 1), st.integers(0, 2))
exits = st.builds(ContainerExit, st.sampled_from([0, 1, 137]), st.booleans(), st.just(5.0))
orders = st.builds(
    lambda desired, leaving, released: ev.Ordered(
        told(make_task(), desired_state=desired, leaving=leaving, released=released)
    ),
    st.sampled_from(DESIRED),
    st.booleans(),
    st.booleans(),
)
events = st.one_of(
    orders,
    st.just(ev.Ordered(None, gone=True)),
    st.builds(
        ev.Pulled,
        st.sampled_from([None, tcp_probe()]),
        st.just("TERM"),
        st.just("i"),
        st.sampled_from([NOTHING, Listens((80,))]),
    ),
    st.builds(ev.Progress, st.just("pulling")),
    st.builds(ev.Prepared, st.just(42)),
    st.builds(ev.PrepareFailed, st.just("no"), st.booleans()),
    st.builds(ev.Started, st.just(5.0)),
    st.builds(ev.StartFailed, st.just("no")),
    st.builds(ev.Settled, st.sampled_from([(), (80,)])),
    st.builds(ev.HealthChanged, st.sampled_from([pb.HEALTH_HEALTHY, pb.HEALTH_UNHEALTHY]), st.just("out")),
    st.builds(ev.Exited, st.one_of(st.none(), exits), st.just(("line",)), st.one_of(st.none(), samples)),
    st.builds(ev.Redirected, st.just(7.0)),
    st.builds(ev.Drained, samples),
    st.builds(ev.DrainTimedOut, samples),
    st.builds(ev.TimerFired, st.sampled_from([0.0, math.inf])),
    st.just(ev.Cleaned()),
    st.builds(ev.CleanFailed, st.just("busy")),
)


def check_step(before: Life | None, after: Life, todo: tuple[ev.Instruction, ...]) -> None:
    if before is not None:
        assert after.phase >= before.phase
        assert after.status.state >= before.status.state
        assert after.started or not before.started
        if before.status.state >= pb.TASK_STATE_COMPLETE:
            assert after.status.state == before.status.state, "an end is final"
    if any(isinstance(i, ev.Start) for i in todo):
        assert todo[0] == ev.Journal(durable=True) and after.started
        assert before is None or not before.started
    if before is not None and after != before and after.phase is not Phase.FORGOTTEN:
        assert isinstance(todo[0], ev.Journal)
    for instruction in todo:
        if isinstance(instruction, ev.Signal):
            assert after.failure or (after.unwanted and after.may_stop)
    if after.phase >= Phase.DRAINING and after.phase < Phase.CLEANING and after.served and not after.failure:
        assert after.gone or after.task.released or after.task.desired_state == pb.TASK_STATE_REMOVE


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(events, st.floats(0, 20)), max_size=40), st.sampled_from(DESIRED))
def test_any_order_of_events(happenings: list[tuple[ev.Event, float]], desired: pb.TaskState.ValueType) -> None:
    now = 100.0
    life, todo = begin(make_task(desired_state=desired), now)
    check_step(None, life, todo)
    starts = cleans = 0
    for event, pause in happenings:
        now += pause
        before = life
        life, todo = handle(before, event, now)
        check_step(before, life, todo)
        starts += sum(isinstance(i, ev.Start) for i in todo)
        cleans += sum(isinstance(i, ev.Clean) for i in todo)
        if life.phase >= Phase.DONE and before.phase < Phase.DONE:
            assert before.phase is Phase.CLEANING
        if life.phase is Phase.CLEANING and before.phase < Phase.CLEANING:
            assert any(isinstance(i, ev.Clean) for i in todo)
    assert starts <= 1


@dataclass
class Host:
    """What outlives an agent: the journal, and the container. `pending`: what a kill loses. `disk`: what of the journal
    outlives a power failure for certain; what was written after it may do so, too."""

    journal: Life | None = None
    disk: Life | None = None
    early: Life | None = None  # what a preparation that is under way has brought to the disk by the time of the start
    rebooted: bool = False  # since an agent last recovered
    container: str = "none"  # none created running exited
    mounted: bool = False
    starts: int = 0
    now: float = 100.0
    life: Life | None = None
    pending: list[ev.Instruction] = field(default_factory=list)
    timer: float = 0.0
    probe: spec.Probe | None = None
    told: list[int] = field(default_factory=list)

    def step(self, step: tuple[Life, tuple[ev.Instruction, ...]]) -> None:
        before = self.life
        self.life, todo = step
        check_step(before, self.life, todo) if before is not None else None
        for instruction in todo:
            match instruction:
                case ev.Journal():
                    self.journal = self.life
                case ev.Prepare():
                    self.early = self.life if self.life.may_start else None
                    self.pending.append(instruction)
                case ev.Report():
                    self.told.append(self.life.status.state)
                case ev.ArmTimer(at=at):
                    self.timer = at
                case _:
                    self.pending.append(instruction)

    def feed(self, event: ev.Event) -> None:
        assert self.life is not None
        self.step(handle(self.life, event, self.now))

    def crash(self) -> None:
        """Everything in memory is lost; a begun instruction has happened or not, by the caller's choice before."""
        self.life, self.pending, self.timer = None, [], 0.0

    def lose_power(self, journal: Life | None) -> None:
        self.crash()
        self.journal = self.disk = journal
        self.container, self.mounted, self.early = "none", False, None
        self.now += 5.0
        self.rebooted = True

    def state(self) -> ContainerState | None:
        if self.container == "none":
            return None
        end = ContainerExit(0, False, 5.0) if self.container == "exited" else None
        alive = self.container in ("created", "running")
        return ContainerState("t1", 42 if alive else 0, self.container == "running", end, 3.0)

    def recover(self) -> None:
        if self.journal is None:
            self.container, self.mounted = "none", False  # an orphan: swept away
            task = make_task()
            task.status.state = max(self.told, default=task.status.state)  # the manager has heard so much
            self.step(begin(task, self.now))
        else:
            self.step(adopt(self.journal, self.state(), self.now, rebooted=self.rebooted))
        self.rebooted = False

    def carry_out(self, instruction: ev.Instruction, fails: bool, reports: bool) -> None:
        """`reports` False: it happened, but the agent was killed before it learned so."""
        event: ev.Event | None = None
        match instruction:
            case ev.Pull():
                event = ev.PrepareFailed("no", False) if fails else ev.Pulled(self.probe, "TERM", "i", Listens((80,)))
            case ev.Prepare():
                self.mounted = True
                if not fails and self.container == "none":
                    self.container = "created"
                event = ev.PrepareFailed("no", False) if fails else ev.Prepared(42)
            case ev.Start():
                self.disk = self.early or self.journal
                if self.container == "created" and not fails:
                    self.container = "running"
                    self.starts += 1
                event = ev.Started(self.now) if self.container in ("running", "exited") else ev.StartFailed("no")
            case ev.WatchExit():
                if self.container == "exited":
                    event = ev.Exited(ContainerExit(0, False, self.now))
                elif reports:
                    self.pending.append(instruction)
            case ev.StartProbing():
                event = ev.HealthChanged(pb.HEALTH_UNHEALTHY if fails else pb.HEALTH_HEALTHY)
            case ev.AwaitPorts():
                if self.container == "running":
                    event = ev.Settled((80,) if fails else ())
            case ev.Signal(name=name):
                if self.container == "running" and (name == "KILL" or not fails):
                    self.container = "exited"
            case ev.WatchDrain():
                event = ev.DrainTimedOut(ev.DrainSample(1)) if fails else ev.Drained(ev.DrainSample())
            case ev.Clean():
                # The shell ends what is still being prepared first.
                self.pending = [i for i in self.pending if not isinstance(i, ev.Pull | ev.Prepare)]
                if not fails:
                    self.container, self.mounted = "none", False
                event = ev.CleanFailed("busy") if fails else ev.Cleaned()
            case ev.Forget():
                self.journal = None
        if event is not None and reports:
            self.feed(event)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_kills_and_power_failures_at_any_moment_start_nothing_twice_and_leave_nothing(data: st.DataObject) -> None:
    host = Host(probe=data.draw(st.sampled_from([None, tcp_probe()])))
    host.step(begin(make_task(), host.now))
    for _ in range(data.draw(st.integers(0, 30))):
        if host.life is None:
            host.recover()
        what = data.draw(st.sampled_from(["act"] * 8 + ["kill", "power", "order", "die", "timer"]))
        host.now += data.draw(st.sampled_from([0.0, 1.0, 20.0]))
        if what == "act" and host.pending:
            index = data.draw(st.integers(0, len(host.pending) - 1))
            host.carry_out(host.pending.pop(index), data.draw(st.integers(0, 4)) == 4, reports=True)
        elif what == "kill":
            if host.pending and data.draw(st.booleans()):
                host.carry_out(host.pending.pop(0), data.draw(st.booleans()), reports=False)
            host.crash()
        elif what == "power":
            host.lose_power(data.draw(st.sampled_from([host.disk, host.journal])))
        elif what == "order":
            host.feed(data.draw(orders))
        elif what == "die" and host.container == "running":
            host.container = "exited"
        elif what == "timer" and host.timer:
            host.feed(ev.TimerFired(host.now))
        assert host.starts <= 1
    if host.life is None:
        host.recover()
    # From here on nothing fails: it must be gone in bounded time.
    host.feed(ev.Ordered(None, gone=True))
    for _ in range(60):
        assert host.life is not None
        if host.life.phase is Phase.FORGOTTEN and not host.pending:
            break
        host.now += 31.0
        if host.pending:
            host.carry_out(host.pending.pop(0), False, reports=True)
        if host.timer:
            host.feed(ev.TimerFired(host.now))
    assert host.life is not None and host.life.phase is Phase.FORGOTTEN
    assert (host.container, host.mounted, host.journal) == ("none", False, None)
    assert host.starts <= 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_without_kills_a_wanted_task_that_can_run_runs(data: st.DataObject) -> None:
    """Attempts that fail for a while do not lose it."""
    host = Host(probe=data.draw(st.sampled_from([None, tcp_probe()])))
    host.step(begin(make_task(), host.now))
    failures = data.draw(st.integers(0, 2))
    for _ in range(20):
        assert host.life is not None
        if host.life.phase is Phase.RUNNING:
            break
        host.now += 3.0
        work = [i for i in host.pending if not isinstance(i, ev.WatchExit)]
        if work:
            host.pending.remove(work[0])
            fails = isinstance(work[0], ev.Pull) and failures > 0
            failures -= fails
            host.carry_out(work[0], fails, reports=True)
        elif host.timer:
            host.feed(ev.TimerFired(host.now))
    assert host.life is not None and host.life.phase is Phase.RUNNING and host.starts == 1
    assert host.told == sorted(host.told)
