"""What an image holds must not lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyswarm_agent.runtime.rootfs import Rootfs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "outside-folder").mkdir()
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    return root


def test_links_are_resolved_as_inside(root: Path) -> None:
    (root / "etc" / "real").write_text("mine")
    (root / "etc" / "passwd").symlink_to("/etc/real")
    with Rootfs(root) as rootfs:
        assert rootfs.read_text("/etc/passwd") == "mine"


@pytest.mark.parametrize("target", ["../../outside", "/../outside", "../../../../../../../etc/hostname"])
def test_no_link_leads_out(root: Path, target: str) -> None:
    (root / "etc" / "passwd").symlink_to(target)
    with Rootfs(root) as rootfs:
        assert rootfs.read_text("/etc/passwd") == ""


def test_an_absolute_link_to_the_host_is_looked_up_inside(root: Path, tmp_path: Path) -> None:
    (root / "etc" / "passwd").symlink_to(tmp_path / "outside")
    with Rootfs(root) as rootfs:
        assert rootfs.read_text("/etc/passwd") == ""


def test_a_fifo_does_not_block(root: Path) -> None:
    os.mkfifo(root / "etc" / "passwd")
    with Rootfs(root) as rootfs:
        assert rootfs.read_text("/etc/passwd") == ""


def test_folders_are_made_where_links_lead_inside(root: Path) -> None:
    (root / "run").mkdir()
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("/run")
    os.umask(os.umask(0o077))
    with Rootfs(root) as rootfs:
        rootfs.make_folders("/var/run/app/data")
        rootfs.make_folders("/var/run/app/data")
    assert (root / "run" / "app" / "data").is_dir()
    assert (root / "run" / "app").stat().st_mode & 0o777 == 0o755


def test_folders_are_not_made_outside(root: Path, tmp_path: Path) -> None:
    (root / "srv").symlink_to("../outside-folder")
    with Rootfs(root) as rootfs, pytest.raises(OSError):
        rootfs.make_folders("/srv/app")
    (root / "evil").symlink_to(tmp_path / "outside-folder")
    with Rootfs(root) as rootfs, pytest.raises(OSError):
        rootfs.make_folders("/evil/app")
    assert list((tmp_path / "outside-folder").iterdir()) == []


def test_a_file_in_the_way_is_an_error(root: Path) -> None:
    (root / "etc" / "app").write_text("")
    with Rootfs(root) as rootfs, pytest.raises(NotADirectoryError):
        rootfs.make_folders("/etc/app/x")


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Rootfs(root) as rootfs:
        rootfs.make_folders("/a/b/c")
        rootfs.read_text("/etc/nothing")
        with rootfs.folder("/a") as folder:
            assert folder is not None
        with rootfs.folder("/nothing") as folder:
            assert folder is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
