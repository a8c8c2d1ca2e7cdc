"""Bad input to the command line on a real cluster: one clear sentence, the right exit code, nothing half done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.lab import REGISTRY, LabUnderTest

pytestmark = pytest.mark.lab

BOX = f"{REGISTRY}/busybox:1"

# (arguments, exit code, a word that the sentence has to have)
BAD = [
    (("service", "deploy", "x", BOX, "--replicas", "-1"), 125, "-1"),
    (("service", "deploy", "x", BOX, "--replicas", "1000000000"), 125, "1000000000"),
    (("service", "deploy", "x", BOX, "--publish", "99999:80"), 125, "99999"),
    (("service", "deploy", "x", BOX, "--publish", "80:0"), 125, "0"),
    (("service", "deploy", "x", BOX, "--mount", "type=bind,source=/x"), 125, "target"),
    (("service", "deploy", "x", BOX, "--limit-memory", "lots"), 125, "lots"),
    (("service", "deploy", "x", BOX, "--update-delay", "soon"), 125, "soon"),
    (("service", "deploy", "x", BOX, "--nosuchflag"), 125, "nosuchflag"),
    (("service", "deploy", "x", BOX, "--constraint", "nonsense"), 125, "nonsense"),
    (("service", "deploy", "x", BOX, "--network", "nowhere"), 1, "nowhere"),
    (("service", "deploy", "Not A Name", BOX), 125, "Not A Name"),
    (("service", "deploy", "x", "REGISTRY/Bad Image:::"), 125, "Bad Image"),
    (("service", "deploy", "x"), 1, "x"),
    (("service", "deploy", "x", "-f", "/nowhere/compose.yaml"), 1, "/nowhere/compose.yaml"),
    (("service", "update", "nosuch", "--replicas", "2"), 1, "nosuch"),
    (("service", "rm", "nosuch"), 1, "nosuch"),
    (("service", "ps", "nosuch"), 1, "nosuch"),
    (("service", "logs", "nosuch"), 1, "nosuch"),
    (("service", "inspect", "nosuch"), 1, "nosuch"),
    (("service", "rollback", "nosuch"), 1, "nosuch"),
    (("service", "scale", "nosuch=2"), 1, "nosuch"),
    (("service", "scale", "nosuch"), 125, "nosuch"),
    (("node", "inspect", "nosuch"), 1, "nosuch"),
    (("node", "inspect", "host-"), 1, "host-"),
    (("node", "update", "--availability", "asleep", "host-1"), 125, "asleep"),
    (("node", "rm", "host-1"), 1, "host-1"),
    (("network", "rm", "nosuch"), 1, "nosuch"),
    (("network", "rm", "default"), 1, "default"),
    (("network", "create", "--subnet", "10.0.0.0", "n"), 1, "10.0.0.0"),
    (("network", "create", "--subnet", "10.90.0.0/8", "n"), 125, "10.90.0.0/8"),
    (("image", "push", f"{REGISTRY}/never-built:1"), 1, "never-built"),
    (("image", "build", "-t", f"{REGISTRY}/x:1", "/nowhere"), 1, "/nowhere"),
    (("registry", "login", "127.0.0.1:1", "-u", "me", "--password-stdin"), 1, "127.0.0.1:1"),
    (("nosuch",), 125, "nosuch"),
    (("service", "nosuch"), 125, "nosuch"),
    (("lab", "up", "--managers", "2"), 1, "2"),
    (("lab", "stop", "host-77"), 1, "host-77"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), BAD, ids=[" ".join(b[0])[:60] for b in BAD])
def test_one_sentence_and_the_right_code(lab: LabUnderTest, arguments: tuple[str, ...], code: int, word: str) -> None:
    if arguments[0] == "lab" and arguments[1] != "up":
        arguments = (arguments[0], arguments[1], "--name", lab.name, *arguments[2:])
    done = lab.run(*arguments, timeout=60, stdin="secret\n")
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    assert lab.json("service", "ls") == []


def test_a_port_that_another_service_publishes(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "first", BOX, "--publish", "8081:80")
    done = lab.run("service", "deploy", "second", BOX, "--publish", "8081:80")
    assert done.returncode == 1
    assert "8081" in done.stderr
    assert "first" in done.stderr
    assert [s["name"] for s in lab.json("service", "ls")] == ["first"]


def test_an_unreadable_compose_file_names_the_line(lab: LabUnderTest, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  web:\n    image: x\n    nosuchkey: 1\n")
    done = lab.run("service", "deploy", "web", cwd=tmp_path)
    assert done.returncode == 1
    assert "compose.yaml:4" in done.stderr
    assert "nosuchkey" in done.stderr
    (tmp_path / "compose.yaml").write_text("services:\n  web: [\n")
    done = lab.run("service", "deploy", "web", cwd=tmp_path)
    assert done.returncode == 1
    assert "compose.yaml:" in done.stderr


def test_a_registry_that_is_down_warns_and_the_tasks_say_so(lab: LabUnderTest) -> None:
    done = lab.run("service", "deploy", "x", "registry.lab:5999/web:v1", timeout=120)
    assert done.returncode == 3, done.stderr
    assert "registry.lab:5999" in done.stderr + done.stdout


def test_a_cluster_that_cannot_be_reached(lab: LabUnderTest) -> None:
    lab.lab("stop", "host-1", "manager")
    try:
        done = lab.run("service", "ls", timeout=60)
        assert done.returncode == 1
        assert "10." in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3
    finally:
        lab.lab("start", "host-1", "manager")


def test_not_root(lab: LabUnderTest, tmp_path: Path) -> None:
    script = (
        "import os, sys; os.setgid(65534); os.setuid(65534); sys.argv = ['pyswarm', 'lab', 'up'];"
        "from pyswarm_cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYSWARM_CONFIG_DIR": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    assert "root" in done.stderr
