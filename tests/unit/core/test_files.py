from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_core import files


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_whole_and_with_its_mode(tmp_path: Path, mode: int, umask: None) -> None:
    path = tmp_path / "a"
    files.put(path, "one", mode)
    files.put(path, b"two", mode)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        files.put(tmp_path / "a", "one")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
