"""Every command of docs/operations.md and docs/troubleshooting.md, run in their order on a lab.

A block that begins with ```sh is run as one script that stops at the first failure: on this machine, or on the host
that the fence names. ```sh none is not run, and each of those is excused below.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.lab import PYSWARM, REGISTRY, REPOSITORY, LabUnderTest, eventually, leftovers

from pyswarm_cli.lab.layout import ROOT as LABS

pytestmark = pytest.mark.lab

DOCS = REPOSITORY / "docs"
DOCUMENTS = ("operations.md", "troubleshooting.md")
# Where else it is run.
EXCUSED = {"pyswarm node rm --force host-2\n": "tests/integration/join/test_bare_hosts.py, on a host that may go"}


@dataclass(frozen=True, slots=True)
class Block:
    line: int
    where: str  # "" = this machine
    script: str


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(text[: found.start()].count("\n") + 1, found[1].strip(), found[2])
        for found in re.finditer(r"^```sh([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.fixture
def web(lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """With the service that the documents speak of, and the context of a manager's root."""
    lab.cli(
        *("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "3", "--publish", "8080:80"),
        *("--update-monitor", "1s", "--update-parallelism", "2"),
    )
    lab.cli("service", "update", "web", "--env-add", "FIRST=no")
    exported = lab.cli("context", "export", lab.name)
    done = lab.run("context", "import", "default", stdin=exported)
    assert done.returncode == 0, done.stderr
    yield lab
    for host in ("host-1", "host-2", "host-3"):
        lab.cli("node", "update", "--availability", "active", host)
    lab.cli("node", "update", "--label-rm", "zone", "host-1")
    lab.cli("context", "rm", "default")
    lab.run("context", "rm", "laptop")


def run(lab: LabUnderTest, block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    script = ["bash", "-euo", "pipefail", "-c", block.script]
    bin_folder = str(Path(PYSWARM[0]).parent)
    environment = {**lab.environment, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    if block.where:
        script = [
            *PYSWARM,
            "lab",
            "exec",
            "--name",
            lab.name,
            block.where,
            "--",
            "env",
            f"PATH={environment['PATH']}",
            *script,
        ]
    return subprocess.run(script, env=environment, cwd=folder, capture_output=True, text=True, timeout=180)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_work(web: LabUnderTest, document: str, tmp_path: Path) -> None:
    found = blocks(DOCS / document)
    assert len(found) >= 8
    for block in found:
        if block.where == "none":
            assert block.script in EXCUSED, f"{document}:{block.line} is run by nobody"
            continue
        done = run(web, block, tmp_path)
        assert done.returncode == 0, f"{document}:{block.line}\n{block.script}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        eventually(
            lambda: web.on("host-2", "nft", "list", "tables").count("ip pyswarm") == 1, "what was removed is back"
        )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_is_hidden_from_the_test(document: str) -> None:
    """Only fenced blocks are run."""
    text = (DOCS / document).read_text()
    fenced = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^ {4}(?:\$ )?(?:pyswarm|etcdctl|nft|systemctl|curl|make) .*$", fenced, re.MULTILINE)


def test_what_install_tells_is_run_on_bare_hosts() -> None:
    """It takes hosts apart, so its commands are those of tests/integration/join, and `system check` a unit test's."""
    told = re.findall(r"^ {4}pyswarm (.+)$", (DOCS / "install.md").read_text(), re.MULTILINE)
    sources = [*REPOSITORY.glob("tests/integration/join/*.py"), REPOSITORY / "tests/unit/cli/test_cli_system_check.py"]
    run = "".join(source.read_text() for source in sources)
    assert len(told) >= 10
    for words in told:
        verb = words.split()[: 2 if words.startswith(("node", "swarm", "system")) else 1]
        quoted = ", ".join(f'"{word}"' for word in verb)
        assert quoted in run or (verb[0] == "system" and " ".join(verb) in run), words


@pytest.mark.timeout(300)
def test_the_readme_leads_from_nothing_to_a_service(tmp_path: Path) -> None:
    """Its last block, in a lab of its own, which gets a name; before it are `make demo` and `make test`."""
    name = f"readme{os.getpid()}"
    for entry in REPOSITORY.iterdir():
        if entry.name != "examples":
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("root"))
    script = blocks(REPOSITORY / "README.md")[-1].script
    assert script.count("pyswarm lab") == 4
    config = tmp_path / "config"
    environment = {key: value for key, value in os.environ.items() if key != "PYSWARM_CONTEXT"}
    environment |= {"PYSWARM_CONFIG_DIR": str(config), "PYSWARM_BUILD_ROOT": str(config / "build")}
    given = re.sub(r"pyswarm lab (\w+)", rf"pyswarm lab \1 --name {name}", script)
    command = ["bash", "-euo", "pipefail", "-c", given]
    try:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "service web converged" in done.stderr and "web.3" in done.stdout
    finally:
        if (LABS / name).exists():
            subprocess.run([*PYSWARM, "lab", "down", "--name", name], env=environment, check=True)
    assert leftovers(name) == []
