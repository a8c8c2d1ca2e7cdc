"""Makes everything on disk that the OCI runtime starts a container from. Blocking: for a thread."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_agent.interfaces import ContainerFailure, ContainerRequest
from pyswarm_agent.runtime import etcfiles, kernel, mounts, spec, users
from pyswarm_agent.runtime.host import HostFacts
from pyswarm_agent.runtime.paths import TaskPaths
from pyswarm_agent.runtime.rootfs import Rootfs
from pyswarm_agent.runtime.volumes import Volumes
from pyswarm_core.v1 import spec_pb2


@dataclass(frozen=True, slots=True)
class Record:
    """pyswarm.json: what the agent must know of a container that it did not make itself, after a restart."""

    log_max_size: int  # bytes
    log_max_file: int
    terminal: bool


def write(request: ContainerRequest, paths: TaskPaths, facts: HostFacts, volumes: Volumes, cgroup: str) -> None:
    """ContainerFailure for what cannot be had; what was made by then is for `remove`."""
    wanted = mounts.wanted_volumes(request.container, request.image)
    _check_binds(request.container)
    try:
        with Rootfs(request.rootfs) as rootfs:
            user = _resolve_user(request, rootfs)
            _make_workdir(spec.workdir(request), rootfs)
            # By target: an image may hold the same path twice, spelt differently.
            folders = {volume.target: str(volumes.prepare(volume, paths, rootfs)) for volume in wanted}
    except OSError as error:
        raise ContainerFailure(f"the root file system {request.rootfs} cannot be read: {error}", final=False) from error
    texts = etcfiles.texts(request)
    files = {target: str(paths.bundle / Path(target).name) for target in texts}
    config = spec.build(request, facts, spec.Prepared(user, folders, files, cgroup))
    paths.exit_dir.mkdir(parents=True)
    paths.persist.mkdir()
    paths.data.mkdir(parents=True, exist_ok=True)
    paths.deleted.unlink(missing_ok=True)
    for target, text in texts.items():
        _write(Path(files[target]), text.encode(), 0o644)
    record = Record(int(request.log.max_size), int(request.log.max_file), request.container.tty)
    _write(paths.record, msgspec.json.encode(record))
    _write(paths.config, msgspec.json.encode(config))


def read_record(paths: TaskPaths) -> Record | None:
    """None: no container is here."""
    try:
        return msgspec.json.decode(paths.record.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def read_process(paths: TaskPaths) -> Mapping[str, Any] | None:
    """The `process` object of the container's config; None: no container is here."""
    try:
        config: dict[str, Any] = msgspec.json.decode(paths.config.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None
    process: Mapping[str, Any] = config["process"]
    return process


def remove(paths: TaskPaths) -> None:
    """The bundle and anonymous volumes; logs stay. Nothing there is no error. OSError: something cannot be deleted."""
    for folder in (paths.bundle, paths.volumes):
        remove_folder(folder)
    if paths.data.exists():
        paths.deleted.touch()


def remove_folder(folder: Path) -> None:
    """With what a runtime that was killed may have mounted directly in it (crun its own program, for a moment)."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                kernel.unmount(str(path), kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
        shutil.rmtree(folder)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # whatever the umask
        os.write(fd, content)
    finally:
        os.close(fd)


def _check_binds(container: spec_pb2.ContainerSpec) -> None:
    for mount in container.mounts:
        if mount.type == spec_pb2.MOUNT_TYPE_BIND and not Path(mount.source).exists():
            raise ContainerFailure(
                f"the bind mount on {mount.target} has no source: this host has no {mount.source}", final=True
            )


def _resolve_user(request: ContainerRequest, rootfs: Rootfs) -> users.User:
    wanted, groups = request.container.user or request.image.user, request.container.groups
    return users.resolve(wanted, groups, rootfs.read_text("/etc/passwd"), rootfs.read_text("/etc/group"))


def _make_workdir(path: str, rootfs: Rootfs) -> None:
    if path == "/":
        return
    try:
        rootfs.make_folders(path)
    except OSError as error:
        raise ContainerFailure(
            f"the working directory {path} cannot be made in the image: {error.strerror}", final=True
        ) from error
