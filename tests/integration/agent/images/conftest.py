from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.images import ImageBuilder
from tests.support.registry import Registry

from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.images.store import ImageStore

NEEDS = "needs root and the packages skopeo, buildah, docker-registry and busybox-static"


def check_tools() -> None:
    if os.geteuid() != 0 or any(
        shutil.which(name) is None for name in ("skopeo", "buildah", "docker-registry", "busybox")
    ):
        pytest.skip(NEEDS)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    check_tools()
    with Registry(tmp_path) as registry:
        yield registry


@pytest.fixture
def images(tmp_path: Path, registry: Registry) -> ImageBuilder:
    return ImageBuilder(tmp_path, registry)


def store_settings(tmp_path: Path, registry: Registry, **others: object) -> ImageSettings:
    return ImageSettings(
        tmp_path / "data",
        tmp_path / "run",
        registries_conf=str(registry.registries_conf),
        **others,  # type: ignore[arg-type]
    )


@pytest.fixture
async def store(tmp_path: Path, registry: Registry) -> AsyncIterator[ImageStore]:
    """Afterwards nothing of it may be mounted any more."""
    store = ImageStore(store_settings(tmp_path, registry))
    yield store
    for task_id in list(store._mounter.mounted()):
        await store.unmount(task_id)
    await store.close()
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    assert left == []
    assert list((tmp_path / "data" / "image-pulls").iterdir()) == []
