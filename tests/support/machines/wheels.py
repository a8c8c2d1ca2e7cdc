"""pyswarm as a wheel, and what it needs, in one folder: a host installs from it without any network."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tomllib
from pathlib import Path

from tests.support.lab import REPOSITORY
from tests.support.machines.trees import CACHE

PYTHON = "/usr/bin/python3"  # Debian's, as on the hosts
_SOURCES = ("pyproject.toml", "README.md", "core", "manager", "agent", "proxy", "cli")


def build(folder: Path, *, version: str = "") -> Path:
    """The wheel of this tree, or of one that says that it is `version`."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in _SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, source / name)
    if version:
        project = source / "pyproject.toml"
        current = _project()["version"]
        project.write_text(project.read_text().replace(f'version = "{current}"', f'version = "{version}"', 1))
    _pip("wheel", "--no-deps", "-w", str(folder), str(source))
    shutil.rmtree(source)
    return next(folder.glob("*.whl"))


def dependencies() -> Path:
    """A folder of wheels, kept between runs for each list of dependencies."""
    wanted = _project()["dependencies"]
    folder = CACHE / f"wheels-{hashlib.sha256(repr(sorted(wanted)).encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = folder.with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)
            _pip("wheel", "-w", str(draft), *wanted)
            draft.rename(folder)
    return folder


def _project() -> dict[str, object]:
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"])


def _pip(*words: str) -> None:
    done = subprocess.run([PYTHON, "-m", "venv", "--help"], capture_output=True)
    assert done.returncode == 0, "needs the package python3-venv"
    pip = CACHE / "pip"
    if not (pip / "bin/pip").exists():
        subprocess.run([PYTHON, "-m", "venv", str(pip)], check=True)
    done = subprocess.run(
        [str(pip / "bin/pip"), "-q", "--disable-pip-version-check", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
