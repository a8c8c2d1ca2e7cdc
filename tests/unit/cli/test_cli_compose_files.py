"""What a Compose file refers to: paths, variables, env files; and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.composing import Service, Write

from pyswarm_cli.compose.loader import ComposeError
from pyswarm_cli.compose.project import ComposeService, Project


def test_relative_paths_begin_at_the_file(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    made = service("volumes: ['./a:/a', '../b:/b', '~/c:/c', {type: bind, source: d, target: /d}]")
    assert [m.source for m in made.task.container.mounts] == [
        str(tmp_path / "a"),
        str(tmp_path.parent / "b"),
        "/home/me/c",
        str(tmp_path / "d"),
    ]


def test_variables_from_dot_env_and_the_environment(compose: Write, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=file\nONLY=here\n")
    lines = ["image: web:${TAG}", "hostname: ${ONLY}", "user: ${UNSET}", "command: echo $$HOME"]
    text = "services:\n  web:\n" + "".join(f"    {line}\n" for line in lines)
    found: ComposeService = compose(text, TAG="environment").service("web")
    assert found.spec.task.container.image == "web:environment"
    assert found.spec.task.container.hostname == "here"
    assert list(found.spec.task.container.args) == ["echo", "$HOME"]
    assert len(found.warnings) == 1 and "compose.yaml:5: the variable UNSET is not set" in found.warnings[0]


def test_env_files_come_before_environment(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=a\nB=a\nSHELL_ONLY\n")
    (tmp_path / "b.env").write_text("B=b\nC=b\n")
    made = service(
        "environment: {C: own, PASSED: }",
        "env_file: [a.env, b.env, {path: none.env, required: false}]",
        SHELL_ONLY="s",
        PASSED="p",
    )
    assert list(made.task.container.env) == ["A=a", "B=b", "SHELL_ONLY=s", "C=own", "PASSED=p"]


def test_a_broken_env_file_names_its_own_line(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nnot a line\n")
    with pytest.raises(ComposeError, match=r"a\.env:2: 'not a line' is not KEY=VALUE"):
        service("env_file: a.env")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="cannot be read: no such file"):
        Project.load(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ComposeError, match="this is a folder"):
        Project.load(tmp_path, {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"services:\n  \xff\n")
    with pytest.raises(ComposeError, match=r"binary\.yaml:2: the file is not UTF-8"):
        Project.load(binary, {})
