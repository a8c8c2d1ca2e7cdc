"""How a command that changes a service ends: its exit code, the reason, and the last lines of what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.support import fake_control as fake
from tests.support.cli import Run
from tests.support.fake_control import FakeControl

from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb

IMAGE = "registry.lab:5000/web:v1"
pytestmark = pytest.mark.usefixtures("folder")


def ends(
    state: pb.RolloutState.ValueType, **fields: object
) -> Callable[[pb.Service, pb.Rollout], Iterator[control.RolloutView]]:
    """A rollout whose second task fails, and that then ends so."""

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        broken = fake.task(
            service,
            2,
            pb.TASK_STATE_FAILED,
            task_id="broken",
            error="exit code 3",
            last_lines=tuple(f"line {n}" for n in range(12)),
        )
        yield fake.view(service, rollout, [fake.task(service, 1), broken])
        last = fake.view(service, rollout, [fake.task(service, 1)], state, reason="task web.2 failed: exit code 3")
        last.rollout.failed_task_id = "broken"
        for name, value in fields.items():
            setattr(last.rollout, name, value)
        yield last

    return script


@pytest.mark.parametrize(
    ("state", "fields", "code", "words"),
    [
        (pb.ROLLOUT_STATE_ROLLED_BACK, {}, 2, "was rolled back to its previous spec: task web.2 failed"),
        (pb.ROLLOUT_STATE_PAUSED, {}, 3, "the rollout of service web is paused: task web.2 failed"),
        (pb.ROLLOUT_STATE_PAUSED, {"generation": 1}, 3, "the rollback of service web is paused"),
        (pb.ROLLOUT_STATE_ROLLED_BACK, {"deadline_passed": True}, 4, "was rolled back"),
        (pb.ROLLOUT_STATE_PAUSED, {"deadline_passed": True}, 4, "is paused"),
        (pb.ROLLOUT_STATE_COMPLETED, {"deadline_passed": True}, 4, "but late"),
        (pb.ROLLOUT_STATE_SUPERSEDED, {}, 1, "a newer change of service web took over"),
    ],
)
@pytest.mark.parametrize("quiet", [False, True])
def test_failures_end_with_the_reason_and_the_last_lines(
    run: Run, running: FakeControl, state: pb.RolloutState.ValueType, fields: dict[str, object], code: int, words: str,
    quiet: bool,
) -> None:  # fmt: skip
    running.script = ends(state, **fields)
    result = run("service", "update", "web", "--image", "web:v2", *(["--quiet"] if quiet else []))
    assert result.exit_code == code
    lines = result.stderr.splitlines()
    assert any(line.startswith("pyswarm: ") and words in line for line in lines)
    assert lines[-11:] == ["last lines of web.2 on host-1:", *(f"    line {n}" for n in range(2, 12))]
    assert quiet != any(line.startswith("receipt: ") for line in lines)


def test_the_failed_task_is_looked_up_when_it_was_not_seen(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [], pb.ROLLOUT_STATE_ROLLED_BACK, reason="x", failed_task_id="old")

    running.script = script
    service = running.services["web-id"]
    running.tasks = [fake.task(service, 1, pb.TASK_STATE_FAILED, task_id="old", error="boom", last_lines=("bye",))]
    assert run("service", "update", "web", "--force").stderr.splitlines()[-3:] == [
        "web.1: boom",
        "last lines of web.1 on host-1:",
        "    bye",
    ]


def test_a_deadline_tells_what_could_not_be_placed(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        waiting = fake.task(service, 1, pb.TASK_STATE_PENDING, message="no suitable node: 3 lack memory")
        yield fake.view(service, rollout, [waiting])
        yield fake.view(service, rollout, [], pb.ROLLOUT_STATE_PAUSED, deadline_passed=True, reason="too slow")

    running.script = script
    result = run("service", "deploy", "web", "--replicas", "1")
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == "web.1: no suitable node: 3 lack memory"
    assert "web.1: pending   [" in result.stderr


def test_of_several_the_first_failure_counts(run: Run, running: FakeControl) -> None:
    run("service", "deploy", "api", IMAGE)
    bad = ends(pb.ROLLOUT_STATE_PAUSED)

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield from bad(service, rollout) if service.spec.name == "web" else fake.converges(service, rollout)

    running.script = script
    result = run("service", "scale", "web=2", "api=2")
    assert result.exit_code == 3
    assert "service api converged" in result.stderr


def test_watch_follows_what_goes_on(run: Run, running: FakeControl) -> None:
    running.script = ends(pb.ROLLOUT_STATE_ROLLED_BACK)
    assert run("service", "update", "web", "--force", "-d").exit_code == 0
    assert run("service", "watch", "web").exit_code == 2
    assert run("service", "watch", "nowhere").exit_code == 1


def test_a_service_that_is_removed_meanwhile(run: Run, running: FakeControl) -> None:

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [])
        running.services.clear()

    running.script = script
    result = run("service", "update", "web", "--force")
    assert result.exit_code == 1
    assert "was removed before the rollout had ended" in result.stderr


def test_a_stream_that_ends_early_is_opened_again(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [])
        if len(running.calls["WatchRollout"]) > 3:
            yield from fake.converges(service, rollout)

    running.script = script
    before = len(running.calls["WatchRollout"])
    assert run("service", "update", "web", "--force").exit_code == 0
    assert len(running.calls["WatchRollout"]) - before == 3
