"""Bad input to every command: one sentence, the right exit code, never a traceback. And the installed command as a
process of its own: exit codes, Ctrl-C, a terminal, a pipe that breaks."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.support import fake_control as fake
from tests.support.cli import Run
from tests.support.fake_control import FakeControl

from pyswarm_cli.main import OBJECTS, cli
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb

PYSWARM = [sys.executable, "-m", "pyswarm_cli"]
# Not walked: the lab's own tests do that, and these would start something.
ELSEWHERE = {"lab"}
# These would make this machine a member of a cluster, or end that: tests/integration/join has hosts for them.
MEMBERSHIP = {"init", "join", "leave"}


def commands() -> dict[str, click.Command]:
    """Every command there is, by its words."""
    found: dict[str, click.Command] = {}

    def walk(group: click.Group, words: tuple[str, ...]) -> None:
        ctx = click.Context(group, info_name=words[-1] if words else "pyswarm")
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            if isinstance(command, click.Group):
                walk(command, (*words, name))
            else:
                found[" ".join((*words, name))] = command

    assert isinstance(cli, click.Group)
    walk(cli, ())
    return {words: command for words, command in found.items() if words.split()[0] not in ELSEWHERE}


COMMANDS = commands()
# What makes a command valid but for the flag that is tried.
ARGUMENTS = {
    "name": "web", "image": "web", "service": "web", "services": "web", "targets": "web=1", "ref": "web",
    "node": "host-1", "nodes": "host-1", "networks": "net", "host": "registry.lab:5000", "folder": ".", "names": "x",
    "file": "/nowhere/x", "args": "x", "role": "worker",
}  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_help(run: Run, words: str) -> None:
    result = run(*words.split(), "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: pyswarm ")


@pytest.mark.parametrize("words", COMMANDS)
def test_unknown_flags(run: Run, words: str) -> None:
    result = run(*words.split(), "--nonsense")
    assert result.exit_code == 125
    assert "no such option '--nonsense'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", COMMANDS)
def test_missing_and_surplus_arguments(run: Run, words: str) -> None:
    if words.split()[-1] in MEMBERSHIP:
        return
    arguments = [p for p in COMMANDS[words].params if isinstance(p, click.Argument)]
    if any(argument.required for argument in arguments):
        result = run(*words.split())
        assert result.exit_code == 125, result.output
        assert "missing" in result.stderr
    if not any(argument.nargs == -1 for argument in arguments):
        result = run(*words.split(), *(["x"] * (len(arguments) + 2)))
        assert result.exit_code == 125, result.output


@pytest.mark.parametrize("words", COMMANDS)
def test_every_flag_with_nonsense(run: Run, cluster: FakeControl, words: str, tmp_path: Path) -> None:
    """No value of any flag gets a traceback, whatever else is wrong; and the cluster is not asked about bad ones."""
    command = COMMANDS[words]
    if words.split()[-1] in MEMBERSHIP:
        return
    if words in ("manager run", "agent run", "system check", "image build", "image push", "image ls"):
        return  # these would start something when the value happens to be right: see below
    arguments = [ARGUMENTS[p.name or ""] for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag]
    for option in options:
        for value in ("", "=", "-1", "1000000000000", "ä ö", "a,b=c", "1:2:3", "x" * 3000, "{{.}}"):
            result = run(*words.split(), f"{option.opts[-1]}={value}", *arguments)
            assert result.exit_code in (0, 1, 125), (option.opts, value, result.output)


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["service", "deploy", "web", "x", "--replicas", "-1"], 125, "between 0 and 10000, not -1"),
        (["service", "deploy", "web", "x", "--replicas", "1000000000"], 125, "between 0 and 10000"),
        (["service", "scale", "web=1000000000"], 125, "between 0 and 10000"),
        (["service", "scale", "web"], 125, "'web' is not SERVICE=REPLICAS"),
        (["service", "scale", "web=1", "web=2"], 125, "given twice"),
        (["service", "deploy", "web", "x", "-p", "99999:80"], 125, "between 1 and 65535"),
        (["service", "deploy", "web", "x", "-p", "2379:80"], 125, "hosts need it for etcd"),
        (["service", "deploy", "we b", "x"], 125, "cannot be a service's name"),
        (["service", "deploy", "web", "X"], 125, "lower case"),
        (["service", "deploy", "web", "x", "y"], 125, "unexpected extra argument"),
        (["service", "deploy", "web", "x", "--env", "=1"], 125, "is not KEY=VALUE"),
        (["service", "deploy", "web", "x", "--update-delay", "5"], 125, "did you mean 5s?"),
        (["service", "deploy", "web", "x", "--replica", "3"], 125, "did you mean"),
        (["service", "update", "web", "--env", "A=1"], 125, "use --env-add and --env-rm"),
        (["service", "update", "web", "-p", "80"], 125, "no such option"),
        (["service", "update", "web", "--publish", "80"], 125, "use --publish-add and --publish-rm"),
        (["service", "update", "web", "--rollback", "--replicas", "3"], 125, "takes no other change"),
        (["service", "update", "web", "--detach=perhaps"], 125, "takes true or false"),
        (["service", "logs", "web", "--tail", "-5"], 125, "between 0 and"),
        (["service", "logs", "web", "--since", "yesterday"], 125, "is no time"),
        (["service", "ps", "web", "-f", "colour=red"], 125, "there is no filter 'colour'"),
        (["service", "depoly", "web"], 125, "did you mean deploy?"),
        (["service"], 125, "a command is missing"),
        (["node", "update", "host-1"], 125, "nothing to change"),
        (["node", "update", "host-1", "--availability", "gone"], 125, "active, pause, drain"),
        (["network", "create", "a b"], 125, "cannot be a network's name"),
        (["network", "create", "a", "--subnet", "10.0.0.1/24"], 125, "bits set beyond its length"),
        (["image", "build", "."], 125, "missing option '-t'"),
        (["image", "build", "-t", "a", "/nowhere"], 1, "there is no folder"),
        (["image", "push", "A"], 125, "lower case"),
        (["registry", "login", "https://x"], 125, "without https://"),
        (["registry", "login", "x"], 125, "use --password-stdin"),
        (["registry", "login", "x", "--password-stdin"], 125, "needs --username"),
        (["registry", "logout", "x"], 1, "there are no credentials for x"),
        (["manager", "run"], 125, "missing option"),
        (["manager", "run", "--advertise", "x", "--etcd", "a:1", "--id", "i"], 125, "not HOST:PORT"),
        (["manager", "run", "--advertise", "x:1", "--etcd", "a:1", "--tls-dir", "/nowhere"], 1, "no TLS file"),
        (["manager", "run", "--advertise", "x:1", "--etcd", ",", "--id", "i"], 125, "at least one"),
        (["manager", "run", "--log-level", "loud"], 125, "no level of logging"),
        (["agent", "run"], 125, "missing option"),
        (["agent", "run", "--managers", "a:1", "--address", "nowhere"], 125, "not an IPv4 address"),
        (["agent", "run", "--managers", "a:1", "--label", "="], 125, "not a label"),
    ],
)
def test_bad_input(run: Run, cluster: FakeControl, args: list[str], code: int, sentence: str) -> None:
    result = run(*args)
    assert result.exit_code == code, result.output
    assert sentence.lower() in result.stderr.lower()
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    if code == 125:
        assert not cluster.calls, "the cluster was asked"


@pytest.mark.parametrize(
    "args",
    [
        ["service", "inspect", "nowhere"], ["service", "ps", "nowhere"], ["service", "rm", "nowhere"],
        ["service", "update", "nowhere", "--replicas", "2"], ["service", "scale", "nowhere=2"],
        ["service", "rollback", "nowhere"], ["service", "logs", "nowhere"], ["service", "watch", "nowhere"],
        ["node", "inspect", "nowhere"], ["node", "update", "nowhere", "--availability", "drain"],
        ["node", "rm", "nowhere"], ["node", "ps", "nowhere"], ["network", "inspect", "nowhere"],
        ["network", "rm", "nowhere"],
    ],
)  # fmt: skip
def test_unknown_names(run: Run, cluster: FakeControl, args: list[str]) -> None:
    if args[1] == "logs":
        cluster.failures["Logs"] = [(fake.NOT_FOUND, "There is no service or task nowhere.")]
    result = run(*args)
    assert result.exit_code == 1, result.output
    assert "nowhere" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ambiguous_prefixes(run: Run, cluster: FakeControl) -> None:
    for identifier in ("abc1", "abc2"):
        cluster.services[identifier] = pb.Service(id=identifier)
        cluster.services[identifier].spec.name = identifier
    result = run("service", "inspect", "abc")
    assert result.exit_code == 1 and "several ids" in result.stderr


def test_no_context(run: Run) -> None:
    for args in (["service", "ls"], ["node", "ls"], ["service", "deploy", "web", "x"]):
        result = run(*args)
        assert result.exit_code == 1
        assert "no context is selected" in result.stderr
    result = run("--context", "nowhere", "service", "ls")
    assert result.exit_code == 1 and "there is no context 'nowhere'" in result.stderr


def test_every_object_is_walked() -> None:
    assert {words.split()[0] for words in COMMANDS} == set(OBJECTS) - ELSEWHERE


# As a process


@pytest.fixture
def endless(cluster: FakeControl) -> Iterator[FakeControl]:
    """A rollout that goes on until the test ends."""
    over = [False]

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        import time

        yield fake.view(service, rollout, [])
        while not over[0]:
            time.sleep(0.05)

    cluster.script = script
    yield cluster
    over[0] = True


def test_exit_codes_of_the_process(cluster: FakeControl) -> None:
    def code(*args: str) -> int:
        return subprocess.run([*PYSWARM, *args], capture_output=True).returncode

    assert code("service", "deploy", "web", "web:v1") == 0
    assert code("service", "deploy", "web", "web:v1", "--replicas", "-1") == 125
    assert code("service", "inspect", "nowhere") == 1

    def rolls_back(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [], pb.ROLLOUT_STATE_ROLLED_BACK, reason="x")

    cluster.script = rolls_back
    assert code("service", "update", "web", "--force") == 2


def test_ctrl_c_leaves_the_work_going(endless: FakeControl) -> None:
    process = subprocess.Popen(
        [*PYSWARM, "service", "deploy", "web", "web:v1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "overall progress" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        "pyswarm: interrupted; the rollout of service web goes on: follow it with 'pyswarm service watch web'"
    )
    assert "Traceback" not in said
    assert "web-id" in endless.services


def test_ctrl_c_while_no_manager_answers(cluster: FakeControl) -> None:
    cluster.stop()
    process = subprocess.Popen([*PYSWARM, "service", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.strip() == "pyswarm: interrupted"


def test_a_terminal_is_redrawn(cluster: FakeControl) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*PYSWARM, "service", "deploy", "web", "web:v1"],
        stdout=subprocess.PIPE,
        stderr=its,
        env={**os.environ, "COLUMNS": "100", "LINES": "40"},
    )
    os.close(its)
    seen = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # EIO: the other end is closed
            break
        if not block:
            break
        seen += block
    assert process.stdout is not None
    assert process.stdout.read() == b"web\n"
    process.stdout.close()
    assert process.wait(10) == 0
    os.close(ours)
    text = seen.decode()
    assert "\x1b[2A\r\x1b[J" in text
    assert re.sub(r"\x1b\[\d*[AJ]", "", text).rstrip().splitlines()[-2].strip() == "verify: service web converged"


def test_a_pipe_that_breaks(cluster: FakeControl) -> None:
    service = pb.Service(id="x")
    service.spec.labels.update({f"k{n}": "v" * 1000 for n in range(8000)})
    cluster.services["x"] = service
    process = subprocess.Popen(
        [*PYSWARM, "service", "inspect", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(10) in (0, 1)  # Python may take a huge write that was cut short for done


def test_an_unreadable_configuration(config_dir: Path) -> None:
    config_dir.mkdir()
    (config_dir / "current").mkdir()
    done = subprocess.run([*PYSWARM, "service", "ls"], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "is a directory" in done.stderr
