"""A container's mounts: what every container has, and what its spec and image ask for. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_core.v1 import spec_pb2 as spec

INIT = "/dev/init"
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_OWN_TARGETS = ("/", "/proc", "/sys", "/dev")

DEFAULT: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
    },
)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume to have ready before the container is made; `name` "" for an anonymous one, the task's `index`-th."""

    name: str
    target: str
    index: int


def wanted_volumes(container: spec.ContainerSpec, image: ImageConfig) -> Sequence[Volume]:
    """The spec's volumes, then an anonymous one for each of the image's that nothing else is mounted on. Also checks
    every mount: ContainerFailure (final) for one that cannot be."""
    found: list[Volume] = []
    targets: set[str] = set()
    for mount in container.mounts:
        target = _target(mount.target)
        if target in targets:
            raise ContainerFailure(f"two mounts have the target {target}", final=True)
        targets.add(target)
        if mount.propagation and (mount.type != spec.MOUNT_TYPE_BIND or mount.propagation not in _PROPAGATIONS):
            raise ContainerFailure(
                f"the mount on {target} cannot have the propagation {mount.propagation!r}", final=True
            )
        if mount.type == spec.MOUNT_TYPE_VOLUME:
            if mount.source and not _VOLUME_NAME.fullmatch(mount.source):
                raise ContainerFailure(
                    f"{mount.source!r} is no name for a volume: use letters, digits and _.- (or type=bind for a path)",
                    final=True,
                )
            found.append(Volume(mount.source, target, len(found)))
        elif mount.type == spec.MOUNT_TYPE_BIND and not mount.source.startswith("/"):
            raise ContainerFailure(f"the bind mount on {target} needs an absolute source path", final=True)
    for path in image.volumes:
        if path.startswith("/") and (target := posixpath.normpath(path)) not in (*targets, *_OWN_TARGETS):
            targets.add(target)
            found.append(Volume("", target, len(found)))
    return found


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ContainerFailure(f"the mount target {path!r} is no absolute path", final=True)
    target = "/" + posixpath.normpath(path).lstrip("/")
    if target in _OWN_TARGETS:
        raise ContainerFailure(f"nothing can be mounted on {target}", final=True)
    return target


def build(
    container: spec.ContainerSpec,
    volumes: Mapping[str, str],
    files: Mapping[str, str],
    init: str,
) -> tuple[list[dict[str, Any]], str]:
    """(OCI mounts in the order to make them, rootfsPropagation or ""). `volumes`: target → folder on the host; `files`:
    target → file on the host (hosts, hostname, resolv.conf); `init`: path of the init to put at INIT, "" for none."""
    asked: dict[str, dict[str, Any]] = {}
    propagation = ""
    read_only_targets = set()
    for mount in container.mounts:
        target = _target(mount.target)
        access = "ro" if mount.read_only else "rw"
        if mount.type == spec.MOUNT_TYPE_TMPFS:
            asked[target] = _tmpfs(mount, target, access)
        elif mount.type == spec.MOUNT_TYPE_BIND:
            how = mount.propagation or "rprivate"
            asked[target] = _bind(mount.source, target, ["rbind", access, how])
            if how in ("shared", "rshared"):
                propagation = "shared"
            elif how in ("slave", "rslave") and not propagation:
                propagation = "rslave"
        elif mount.read_only:
            read_only_targets.add(target)
    for target, folder in volumes.items():
        access = "ro" if target in read_only_targets else "rw"
        asked[target] = _bind(folder, target, ["rbind", access, "rprivate"])
    for target, file in files.items():
        if target not in asked:
            access = "ro" if container.read_only else "rw"
            asked[target] = _bind(file, target, ["rbind", access, "rprivate"])
    if init:
        asked[INIT] = _bind(init, INIT, ["bind", "ro", "nosuid", "nodev"])
    defaults = [entry for entry in DEFAULT if entry["destination"] not in asked]
    # A mount on /a must not cover one on /a/b.
    ordered = sorted(asked.values(), key=lambda entry: (entry["destination"].count("/"), entry["destination"]))
    return [*defaults, *ordered], propagation


def _bind(source: str, target: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _tmpfs(mount: spec.Mount, target: str, access: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", "noexec", access, f"mode={mount.tmpfs_mode or 0o1777:o}"]
    if mount.tmpfs_size:
        options.append(f"size={mount.tmpfs_size}")
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
