"""service logs, against a fake manager over real TLS."""

from __future__ import annotations

from tests.support.cli import Run
from tests.support.fake_control import FakeControl

from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire


def lines(*texts: tuple[str, str, bool]) -> list[control.LogsResponse]:
    response = control.LogsResponse(
        sources=[
            control.LogSource(task_id="a" * 25, task_name="web.1", hostname="host-1"),
            control.LogSource(task_id="b" * 25, task_name="web.10", hostname="host-2"),
        ]
    )
    for number, (task, text, is_stderr) in enumerate(texts):
        response.lines.append(
            wire.LogLine(task_id=task * 25, at=1_700_000_000 + number, line=text.encode(), is_stderr=is_stderr)
        )
    return [response, control.LogsResponse(warnings=["host-3 is down: its tasks web.3 are missing"])]


def test_logs(run: Run, running: FakeControl) -> None:
    running.logs = lines(("a", "one", False), ("b", "two", True), ("a", "drei ä", False))
    result = run("service", "logs", "web")
    assert result.stdout == f"web.1.{'a' * 12}@host-1  | one\nweb.1.{'a' * 12}@host-1  | drei ä\n"
    assert result.stderr == (f"web.10.{'b' * 12}@host-2 | two\nwarning: host-3 is down: its tasks web.3 are missing\n")
    assert run("service", "logs", "--raw", "web").stdout == "one\ndrei ä\n"
    assert run("service", "logs", "--no-task-ids", "-t", "web").stdout.splitlines()[0] == (
        "2023-11-14T22:13:20.000000Z web.1@host-1  | one"
    )
    run("service", "logs", "--tail", "5", "--since", "2026-01-01T00:00:00Z", "-f", "web")
    request = running.calls["Logs"][-1]
    assert (request.tail, request.since, request.follow) == (5, 1767225600.0, True)
    run("service", "logs", "-n", "all", "web")
    assert running.calls["Logs"][-1].tail == -1


def test_since_is_relative_too(run: Run, running: FakeControl) -> None:
    import time

    run("service", "logs", "--since", "10m", "web")
    assert abs(running.calls["Logs"][-1].since - (time.time() - 600)) < 10
