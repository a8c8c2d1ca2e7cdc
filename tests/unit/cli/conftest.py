"""Every test gets a configuration directory of its own and none of the user's environment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from tests.support.cli import Run
from tests.unit.cli.composing import Service, Write

from pyswarm_cli.compose.project import Project
from pyswarm_core import contexts
from pyswarm_core.v1 import spec_pb2 as spec

if TYPE_CHECKING:
    from tests.support.fake_control import FakeControl


@pytest.fixture(autouse=True)
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("PYSWARM_CONFIG_DIR", str(folder))
    monkeypatch.delenv("PYSWARM_CONTEXT", raising=False)
    monkeypatch.delenv("PYSWARM_DEBUG", raising=False)
    return folder


@pytest.fixture
def run() -> Run:
    """Runs `pyswarm ARGS…` in this process; checks what holds for every command: no traceback, one sentence."""
    from pyswarm_cli.main import cli

    def call(*args: str, stdin: str | None = None, one_line: bool = True) -> Result:
        result = CliRunner().invoke(cli, list(args), input=stdin, prog_name="pyswarm")
        assert "Traceback" not in result.output, result.output
        if result.exit_code and one_line:
            lines = [line for line in result.stderr.splitlines() if line.startswith("pyswarm: ")]
            assert len(lines) == 1, result.stderr
        assert "fault of pyswarm itself" not in result.output, result.output
        return result

    return call


@pytest.fixture
def cluster() -> Iterator[FakeControl]:
    """A manager that answers, and a selected context that leads to it."""
    from tests.support.fake_control import FakeControl

    server = FakeControl()
    server.start()
    contexts.save("test", server.context())
    contexts.select("test")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: without a Compose file."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def running(run: Run, cluster: FakeControl) -> FakeControl:
    """web:v1 runs, with 3 replicas and a variable."""
    assert run("service", "deploy", "web", "registry.lab:5000/web:v1", "--replicas", "3", "-e", "A=1").exit_code == 0
    return cluster


@pytest.fixture
def compose(tmp_path: Path) -> Write:
    def write(text: str, **environ: str) -> Project:
        path = tmp_path / "compose.yaml"
        path.write_text(textwrap.dedent(text))
        return Project.load(path, environ)

    return write


@pytest.fixture
def service(compose: Write) -> Service:
    """The spec of a service whose other keys are given, one a line."""

    def build(*lines: str, top: str = "", **environ: str) -> spec.ServiceSpec:
        body = "\n".join(f"    {line}" for line in ["image: web:v1", *lines])
        return compose(f"services:\n  web:\n{body}\n{top}\n", **environ).service("web").spec

    return build
