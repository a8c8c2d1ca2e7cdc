"""One lab for all tests of this folder that do not break it beyond repair; each test starts without services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.lab import LabUnderTest, eventually, running


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    with running(LabUnderTest(f"t{os.getpid()}", tmp_path_factory.mktemp("config"))) as lab:
        lab.build_images(tmp_path_factory.mktemp("images"))
        yield lab


@pytest.fixture
def lab(shared_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    shared_lab.lab("heal")
    eventually(
        lambda: all(n["status"] == "ready" and n["availability"] == "active" for n in shared_lab.json("node", "ls")),
        "all nodes ready",
    )
    yield shared_lab
    shared_lab.lab("heal")
    shared_lab.remove_services()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "load.json"
