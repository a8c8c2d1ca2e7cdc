"""Local volumes: folders of this host. A volume that is empty when a container first uses it gets what the image has at
its place, as in Docker."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from pathlib import Path

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.runtime.mounts import Volume
from pyswarm_agent.runtime.paths import TaskPaths
from pyswarm_agent.runtime.rootfs import Rootfs


class Volumes:
    """Blocking calls, for a thread. Two containers that use one volume for the first time copy once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filling = threading.Lock()

    def prepare(self, volume: Volume, paths: TaskPaths, rootfs: Rootfs) -> Path:
        """The volume's folder, made and filled. ContainerFailure when the disk is full or the image is in the way."""
        path = self._folder / volume.name if volume.name else paths.volumes / str(volume.index)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if _is_empty(path):
                with self._filling:
                    if _is_empty(path):
                        self._fill(path, volume.target, rootfs)
        except OSError as error:
            what = f"the volume {volume.name!r}" if volume.name else f"the volume for {volume.target}"
            raise ContainerFailure(
                f"{what} could not be made on this host: {error.strerror or error}", final=error.errno != errno.ENOSPC
            ) from error
        return path

    def _fill(self, path: Path, target: str, rootfs: Rootfs) -> None:
        """All or nothing: what was copied when it failed is deleted, so that the volume counts as unused again."""
        with rootfs.folder(target) as source:
            if source is None:
                return
            try:
                for child in os.scandir(source):
                    _copy(Path(child.path), path / child.name)
                _copy_attributes(source, path, follow=True)
            except BaseException:
                for child in os.scandir(path):
                    _remove(Path(child.path))
                raise


def _is_empty(path: Path) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _copy(source: Path, target: Path) -> None:
    """Owners, modes, times and extended attributes included; links as links. Devices and sockets are made anew."""
    info = source.lstat()
    if stat.S_ISDIR(info.st_mode):
        target.mkdir()
        for child in os.scandir(source):
            _copy(Path(child.path), target / child.name)
    elif stat.S_ISLNK(info.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(info.st_mode):
        shutil.copyfile(source, target)
    elif stat.S_ISSOCK(info.st_mode):
        return
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    _copy_attributes(source, target, follow=False)


def _copy_attributes(source: Path, target: Path, *, follow: bool) -> None:
    info = source.stat(follow_symlinks=follow)
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=follow)
    # After chown, which clears the set-id bits.
    shutil.copystat(source, target, follow_symlinks=follow)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
