"""The root: exit codes, aliases, suggestions, and nothing ever a traceback."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from tests.support.cli import Run

from pyswarm_cli import exits
from pyswarm_cli.lazy import Lazy
from pyswarm_cli.main import OBJECTS, Root
from pyswarm_core import errors


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["servce"], "did you mean service?"),
        (["xyzzy"], "there are: service, node"),
        (["context", "lst"], "did you mean"),
        (["context"], "a command is missing: one of ls, use"),
        (["context", "ls", "--forma"], "did you mean '--format'?"),
        (["context", "ls", "--format", "xml"], "is not one of 'table', 'json'"),
        (["context", "use"], "missing argument 'NAME'"),
        (["context", "ls", "-f", "colour=red"], "there is no filter 'colour'; there are: name"),
        (["context", "ls", "-f", "name"], "is not KEY=VALUE"),
        (["--nonsense"], "no such option"),
    ],
)
def test_usage_errors_are_125_and_one_sentence(run: Run, args: list[str], sentence: str) -> None:
    result = run(*args)
    assert result.exit_code == 125
    assert sentence in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def test_no_command_shows_help(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    assert "Commands:" in result.stdout and "service" in result.stdout
    for word in ("swarm", "init", "join", "leave"):
        assert f"\n  {word} " in result.stdout


def _raises(error: BaseException) -> Root:
    @click.command("boom")
    def boom() -> None:
        raise error

    root = Root("pyswarm")
    root.add_command(boom)
    return root


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (errors.NotFound("service web is not there; see 'pyswarm service ls'"), 1, "pyswarm: service web is not there"),
        (exits.Ended(4, "the deadline passed"), 4, "pyswarm: the deadline passed"),
        (exits.Ended(2), 2, ""),
        (exits.Interrupted("interrupted; it goes on"), 130, "interrupted; it goes on"),
        (KeyboardInterrupt(), 130, "pyswarm: interrupted"),
        (PermissionError(13, "Permission denied", "/root/x"), 1, "pyswarm: /root/x: permission denied"),
        (ZeroDivisionError("a\nb"), 1, "fault of pyswarm itself, ZeroDivisionError: a b"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1, "not UTF-8"),
    ],
)
def test_each_error_has_a_code_and_a_sentence(error: BaseException, code: int, sentence: str) -> None:
    result = CliRunner().invoke(_raises(error), ["boom"], prog_name="pyswarm")
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert sentence in result.stderr if sentence else result.stderr == ""


def test_broken_pipe_is_quiet() -> None:
    script = (
        "import sys, click\n"
        "from pyswarm_cli.main import Root\n"
        "@click.command('boom')\n"
        "def boom():\n"
        "    [print('x' * 1000) for _ in range(10000)]\n"
        "root = Root('pyswarm'); root.add_command(boom)\n"
        "root.main(['boom'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


def test_every_object_says_in_one_line_what_it_is() -> None:
    for name, entry in OBJECTS.items():
        assert isinstance(entry, Lazy)
        assert entry.help and not entry.help.endswith("."), name


def test_what_is_wrong_before_a_host_is_touched(run: Run) -> None:
    result = run("join", "--token", "x", "10.0.0.1:2377")
    assert result.exit_code == 1
    assert "not a join token" in result.stderr
    assert run("join", "10.0.0.1:2377").exit_code == 125
    assert run("swarm", "join-token", "root").exit_code == 125
