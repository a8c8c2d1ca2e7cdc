"""`service deploy` against a fake manager: what it starts from, what it sends, what it shows, how it ends."""

from __future__ import annotations

from tests.support.cli import Run
from tests.support.fake_control import FakeControl


def test_a_new_service(run: Run, cluster: FakeControl) -> None:
    result = run("service", "deploy", "web", "registry.lab:5000/web:v1", "--replicas", "3", "-p", "8080:80")
    assert result.exit_code == 0, result.output
    assert "verify: service web converged" in result.stderr
    assert result.stdout == "web\n"
