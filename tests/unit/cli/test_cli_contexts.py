from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from tests.support.cli import Run

from pyswarm_core import contexts
from pyswarm_core.contexts import Context
from pyswarm_core.errors import InvalidInput, NotFound

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
LAB = Context(
    managers=("10.90.0.11:2377", "10.90.0.12:2377"),
    ca=PEM,
    cert=PEM,
    key=PEM,
    hosts={"registry.lab": "10.90.0.1"},
    registry_ca={"registry.lab:5000": PEM},
)


def test_what_was_saved_is_loaded() -> None:
    contexts.save("lab", LAB)
    assert contexts.load("lab") == LAB
    assert contexts.names() == ["lab"]


def test_all_of_it_is_private(config_dir: Path) -> None:
    contexts.save("lab", LAB)
    contexts.select("lab")
    for path in [config_dir, *config_dir.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_select_returns_the_former_one_and_takes_it_back() -> None:
    contexts.save("a", LAB)
    contexts.save("b", LAB)
    assert contexts.select("a") is None
    assert contexts.select("b") == "a"
    assert contexts.current() == "b"
    assert contexts.select(None) == "b"
    assert contexts.current() is None


def test_removing_the_selected_one_selects_none() -> None:
    contexts.save("a", LAB)
    contexts.select("a")
    contexts.remove("a")
    assert contexts.current() is None
    assert contexts.names() == []
    contexts.remove("a")  # once more is no error


def test_removing_another_one_leaves_the_selection() -> None:
    contexts.save("a", LAB)
    contexts.save("b", LAB)
    contexts.select("a")
    contexts.remove("b")
    assert contexts.current() == "a"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 80])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        contexts.save(name, LAB)


def test_an_unknown_one_names_those_there_are() -> None:
    contexts.save("lab", LAB)
    with pytest.raises(NotFound, match="known contexts: lab"):
        contexts.load("lap")


def test_selecting_an_unknown_one_changes_nothing() -> None:
    contexts.save("a", LAB)
    contexts.select("a")
    with pytest.raises(NotFound):
        contexts.select("b")
    assert contexts.current() == "a"


def test_a_damaged_one_says_so(config_dir: Path) -> None:
    contexts.save("lab", LAB)
    (config_dir / "contexts/lab/key.pem").unlink()
    with pytest.raises(InvalidInput, match=r"key\.pem is missing"):
        contexts.load("lab")
    contexts.save("lab", LAB)
    (config_dir / "contexts/lab/context.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read"):
        contexts.load("lab")
    (config_dir / "contexts/lab/context.json").write_text("[]")
    with pytest.raises(InvalidInput, match="an object is expected"):
        contexts.load("lab")


def test_the_key_is_not_in_repr() -> None:
    assert "key=" not in repr(LAB)


def test_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYSWARM_CONFIG_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert contexts.config_dir() == tmp_path / "pyswarm"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert contexts.config_dir() == Path("/home/somebody/.config/pyswarm")


def test_commands(run: Run, tmp_path: Path) -> None:
    contexts.save("lab", LAB)
    assert run("context", "use", "lab").exit_code == 0
    assert run("context", "ls").stdout.splitlines()[1].split() == ["lab", "*", "10.90.0.11:2377,", "10.90.0.12:2377"]
    assert json.loads(run("context", "list", "--format", "json").stdout) == [
        {"name": "lab", "current": True, "managers": list(LAB.managers)}
    ]
    shown = json.loads(run("context", "show").stdout)
    assert shown["name"] == "lab" and "key" not in shown
    file = tmp_path / "lab.json"
    assert run("context", "export", "lab", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("context", "import", "copy", str(file)).exit_code == 0
    assert contexts.load("copy") == LAB
    assert run("context", "import", "copy", str(file)).exit_code == 1
    assert run("context", "import", "--force", "copy", "-", stdin=file.read_text()).exit_code == 0
    assert run("context", "rm", "copy", "nope").exit_code == 1
    assert contexts.names() == ["copy", "lab"]  # all or none
    assert run("context", "remove", "copy").exit_code == 0
    assert contexts.names() == ["lab"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"managers": []}', '{"managers": ["a:1"], "ca": "x"}'])
def test_import_of_nonsense(run: Run, text: str) -> None:
    result = run("context", "import", "x", stdin=text)
    assert result.exit_code == 1
    assert "is not a context" in result.stderr
    assert contexts.names() == []
