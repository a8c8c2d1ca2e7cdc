"""One lab of five hosts and three managers for all tests of this folder; each leaves it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.ha.ha_lab import HaLab
from tests.integration.ha.witness import Witness
from tests.support.lab import eventually, running


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaLab]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    with running(HaLab(f"ha{os.getpid()}", tmp_path_factory.mktemp("config")), hosts=5, managers=3) as lab:
        lab.build_images(tmp_path_factory.mktemp("images"))
        yield lab


@pytest.fixture
def lab(shared_lab: HaLab) -> Iterator[HaLab]:
    shared_lab.restore()
    eventually(lambda: all(n["status"] == "ready" for n in shared_lab.json("node", "ls")), "all nodes ready")
    yield shared_lab
    shared_lab.restore()
    shared_lab.remove_services()


@pytest.fixture
def witness(lab: HaLab) -> Iterator[Witness]:
    with Witness(lab.layout) as witness:
        yield witness


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "load.json"
