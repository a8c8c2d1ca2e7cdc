"""What is shown of a rollout, and what its end means. Pure."""

from __future__ import annotations

import io
import itertools
import time

import pytest
from tests.support import fake_control as fake

from pyswarm_cli import exits
from pyswarm_cli.progress import outcome
from pyswarm_cli.progress.screen import Plain, Terminal, fit
from pyswarm_cli.progress.view import Picture, Slot, picture
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

FULL = "[" + "=" * 50 + ">]"
RUNNING, COMPLETED = pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_COMPLETED
ENDS = {
    pb.ROLLOUT_STATE_COMPLETED: exits.CONVERGED,
    pb.ROLLOUT_STATE_ROLLED_BACK: exits.ROLLED_BACK,
    pb.ROLLOUT_STATE_PAUSED: exits.PAUSED,
    pb.ROLLOUT_STATE_SUPERSEDED: exits.ERROR,
}


def service(replicas: int = 3, mode: spec.ServiceMode.ValueType = spec.SERVICE_MODE_REPLICATED) -> pb.Service:
    wanted = spec.ServiceSpec(name="web", replicas=replicas, mode=mode, update=spec.UpdatePolicy(monitor=5))
    wanted.task.container.image = "web:v2"
    return pb.Service(id="web-id", spec=wanted, spec_version=2)


def rollout() -> pb.Rollout:
    return pb.Rollout(id="r", service_id="web-id", service_name="web", started_at=100.0)


def test_the_contracts_example() -> None:
    it = service()
    tasks = [
        fake.task(it, 1),
        fake.task(it, 2),
        fake.task(it, 3, pb.TASK_STATE_PREPARING, message="pulling 1/3 layers"),
    ]
    lines = picture(fake.view(it, rollout(), tasks)).lines
    assert lines[0] == "overall progress: 2 out of 3 tasks"
    assert lines[1] == f"web.1: running   {FULL}"
    assert lines[3].startswith("web.3: preparing [") and lines[3].endswith("] pulling 1/3 layers")
    assert len(lines) == 4


def test_slots_without_a_task_yet() -> None:
    lines = picture(fake.view(service(), rollout(), [])).lines
    assert lines[0] == "overall progress: 0 out of 3 tasks"
    assert lines[1].startswith("web.1: waiting   [>")


def test_a_task_that_cannot_be_placed_says_why() -> None:
    it = service(1)
    task = fake.task(it, 1, pb.TASK_STATE_PENDING, message="no suitable node: 3 nodes have too little memory")
    assert (
        picture(fake.view(it, rollout(), [task]))
        .lines[1]
        .endswith("] no suitable node: 3 nodes have too little memory")
    )


def test_an_old_task_that_runs_is_not_done() -> None:
    it = service(1)
    old = fake.task(it, 1)
    old.spec.container.image = "web:v1"
    found = picture(fake.view(it, rollout(), []))
    assert found.overall == "overall progress: 0 out of 1 tasks"
    view = fake.view(it, rollout(), [])
    view.tasks.append(old)
    assert picture(view).overall == "overall progress: 0 out of 1 tasks"
    assert picture(view).slots[0].note == "to be replaced"


def test_the_new_task_of_a_slot_counts_while_the_old_one_drains() -> None:
    it = service(1)
    old = fake.task(it, 1, task_id="old", created_at=1.0)
    old.leaving = True
    old.desired_state = pb.TASK_STATE_SHUTDOWN
    view = fake.view(it, rollout(), [fake.task(it, 1, created_at=2.0)], phase=pb.SLOT_PHASE_DRAINING)
    view.tasks.append(old)
    found = picture(view)
    assert found.overall == "overall progress: 1 out of 1 tasks"
    assert found.slots[0].note == "the old task is leaving"


def test_a_task_that_is_starting_its_probe_is_not_done() -> None:
    it = service(1)
    task = fake.task(it, 1)
    task.status.health = pb.HEALTH_STARTING
    assert not picture(fake.view(it, rollout(), [task])).slots[0].done


def test_slots_that_go_are_shown_until_they_are_gone() -> None:
    it = service(1)
    going = fake.task(it, 2, desired=pb.TASK_STATE_SHUTDOWN)
    view = fake.view(it, rollout(), [fake.task(it, 1)], phase=pb.SLOT_PHASE_DONE)
    view.tasks.append(going)
    assert [slot.state for slot in picture(view).slots] == ["running", "leaving"]
    going.status.state = pb.TASK_STATE_SHUTDOWN
    del view.tasks[:]
    view.tasks.extend([fake.task(it, 1), going])
    assert [slot.name for slot in picture(view).slots] == ["web.1"]


def test_a_global_services_slots_are_its_nodes() -> None:
    it = service(0, spec.SERVICE_MODE_GLOBAL)
    task = fake.task(it, 0)
    view = fake.view(it, rollout(), [])
    view.tasks.append(task)
    view.rollout.slots.add(node_id="node-1-id", phase=pb.SLOT_PHASE_DONE, new_task_id=task.id)
    assert picture(view).lines[:2] == ["overall progress: 1 out of 1 tasks", f"web.host-1: running   {FULL}"]


def test_rolling_back_is_said() -> None:
    it = service(1)
    view = fake.view(it, rollout(), [fake.task(it, 1)], pb.ROLLOUT_STATE_ROLLING_BACK)
    assert picture(view).overall == "overall progress: rolling back update: 1 out of 1 tasks"


def test_what_is_waited_for_at_the_end() -> None:
    it = service(1)
    done = [fake.task(it, 1)]
    watched = picture(fake.view(it, rollout(), done, phase=pb.SLOT_PHASE_MONITORING))
    assert watched.verify == "verify: waiting until all tasks have been stable for 5s"
    assert "load balancer" in picture(fake.view(it, rollout(), done)).verify
    assert picture(fake.view(it, rollout(), done, COMPLETED)).verify == ""


@pytest.mark.parametrize(("state", "late"), list(itertools.product(ENDS, (False, True))))
def test_every_end_has_its_code(state: pb.RolloutState.ValueType, late: bool) -> None:
    ended = pb.Rollout(service_name="web", state=state, deadline_passed=late, reason="task web.1 failed.")
    code = outcome.exit_code(ended)
    if late and state != pb.ROLLOUT_STATE_SUPERSEDED:
        assert code == exits.DEADLINE_PASSED
    else:
        assert code == ENDS[state]
    assert outcome.verdict(ended)
    sentence = outcome.sentence(ended)
    assert bool(sentence) == (code != exits.CONVERGED)
    if sentence:
        assert "web" in sentence and "\n" not in sentence
        assert state == pb.ROLLOUT_STATE_SUPERSEDED or "task web.1 failed" in sentence


def test_a_rollback_by_hand_that_converged_is_a_success() -> None:
    ended = pb.Rollout(service_name="web", state=COMPLETED, kind=pb.ROLLOUT_KIND_ROLLBACK)
    assert outcome.exit_code(ended) == 0


def test_a_rollback_that_failed_is_called_one() -> None:
    ended = pb.Rollout(service_name="web", state=pb.ROLLOUT_STATE_PAUSED, generation=1, reason="x")
    assert outcome.exit_code(ended) == exits.PAUSED
    assert outcome.sentence(ended).startswith("the rollback of service web is paused")


def test_the_receipt_is_one_line() -> None:
    ended = pb.Rollout(started_at=100, finished_at=112.34)
    ended.receipt.replaced, ended.receipt.failures, ended.receipt.resets = 10, 1, 2
    ended.receipt.open_at_stop = 3
    for is_new in (True, False, True):
        ended.receipt.tasks.add(is_new=is_new, started_at=101)
    assert outcome.receipt(ended) == (
        "receipt: 2 tasks started, 10 replaced in 12.3s, 1 failure, 0 connections opened after leaving, "
        "3 open at stop, 2 resets"
    )


def drawn(number: int, done: int, verify: str = "") -> Picture:
    slots = tuple(Slot(f"web.{n + 1}", "running", "", 8, n < done) for n in range(number))
    return Picture(f"overall progress: {done} out of {number} tasks", slots, verify)


def test_plain_output_repeats_nothing() -> None:
    out = io.StringIO()
    screen = Plain(out)
    for done in (0, 0, 1, 1, 2):
        screen.show(drawn(2, done))
    screen.say("end")
    lines = out.getvalue().splitlines()
    assert lines[-1] == "end"
    assert sum(line.startswith("overall") for line in lines) == 3
    assert sum(line.startswith("web.1") for line in lines) == 2
    assert "\x1b" not in out.getvalue()


def test_plain_output_of_many_slots_is_the_whole_and_what_is_wrong() -> None:
    out = io.StringIO()
    wrong = Slot("web.7", "pending", "no suitable node", 2, False)
    Plain(out).show(Picture("overall progress: 0 out of 100 tasks", (*drawn(99, 0).slots, wrong), ""))
    assert out.getvalue().splitlines() == ["overall progress: 0 out of 100 tasks", wrong.line()]


def test_a_terminal_is_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "24")
    out = io.StringIO()
    screen = Terminal(out)
    screen.show(drawn(2, 0))
    screen.show(drawn(2, 0))
    first = out.getvalue()
    assert "\x1b" not in first
    assert max(len(line) for line in first.splitlines()) < 40
    screen.show(drawn(2, 2, "verify: x"))
    assert out.getvalue()[len(first) :].startswith("\x1b[3A\r\x1b[J")
    screen.say("stays")
    before = out.getvalue()
    screen.show(drawn(2, 2, "verify: y"))
    assert "\x1b" not in out.getvalue()[len(before) :]


@pytest.mark.parametrize("rows", [5, 10, 24])
def test_what_does_not_fit_is_what_is_done(rows: int) -> None:
    lines = fit(drawn(100, 97, "verify: x"), rows)
    assert len(lines) <= max(rows, 4)
    assert lines[0].startswith("overall")
    assert lines[-1] == "verify: x"
    assert any("more" in line for line in lines)


def test_the_fake_is_as_old_as_it_says() -> None:
    assert abs(fake.task(service(), 1).created_at - time.time()) < 5
