"""Are a container's mounts possible, and what their defaults are."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.templates import check_templates

PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_KINDS = {spec.MOUNT_TYPE_BIND: "bind", spec.MOUNT_TYPE_VOLUME: "volume", spec.MOUNT_TYPE_TMPFS: "tmpfs"}


def complete_mounts(mounts: Iterable[spec.Mount]) -> None:
    """Targets without doubled slashes and dots; a bind's propagation."""
    for mount in mounts:
        if mount.target.startswith("/"):
            mount.target = "/" + posixpath.normpath(mount.target).lstrip("/")
        if mount.type == spec.MOUNT_TYPE_BIND and not mount.propagation:
            mount.propagation = PROPAGATIONS[0]


def check_mounts(mounts: Iterable[spec.Mount]) -> None:
    targets: set[str] = set()
    for mount in mounts:
        check_templates(f"the mount at {mount.target}", mount.source)
        check_templates(f"the mount at {mount.target}", mount.target)
        _check_target(mount)
        _check_source(mount)
        _check_options(mount)
        if mount.target in targets:
            raise InvalidInput(f"Two mounts have the target {mount.target}: each place can take one.")
        targets.add(mount.target)


def _check_target(mount: spec.Mount) -> None:
    target = mount.target
    if not target:
        raise InvalidInput("A mount has no target: name a path in the container.")
    if not target.startswith("/"):
        raise InvalidInput(f"Mount target {target!r} must be an absolute path in the container.")
    if target == "/":
        raise InvalidInput("A mount at / would hide the image: name a folder below it as target.")
    if "\0" in target:
        raise InvalidInput(f"Mount target {target!r} has a NUL character in it.")


def _check_source(mount: spec.Mount) -> None:
    source, target = mount.source, mount.target
    if mount.type not in _KINDS:
        raise InvalidInput(f"The mount at {target} has an unknown type: it is bind, volume or tmpfs.")
    if mount.type == spec.MOUNT_TYPE_BIND:
        if not source.startswith(("/", "{{")):
            raise InvalidInput(
                f"The bind mount at {target} needs an absolute path on the host as its source, not {source!r}."
            )
        if "\0" in source:
            raise InvalidInput(f"The source of the mount at {target} has a NUL character in it.")
    elif mount.type == spec.MOUNT_TYPE_TMPFS:
        if source:
            raise InvalidInput(f"The tmpfs at {target} can have no source: it is memory.")
    elif source and "{{" not in source and not _VOLUME.fullmatch(source):
        raise InvalidInput(
            f"{source!r} cannot be a volume's name (mount at {target}): use letters, digits, dots, dashes and "
            "underscores, or make it a bind mount to give a path."
        )


def _check_options(mount: spec.Mount) -> None:
    kind, target = _KINDS[mount.type], mount.target
    if mount.type != spec.MOUNT_TYPE_TMPFS and (mount.tmpfs_size or mount.tmpfs_mode):
        raise InvalidInput(f"The {kind} mount at {target} can have no tmpfs size or mode.")
    if mount.tmpfs_mode > 0o7777:
        raise InvalidInput(f"The mode of the tmpfs at {target} must be octal permissions, at most 7777.")
    if mount.type != spec.MOUNT_TYPE_BIND and mount.propagation:
        raise InvalidInput(f"The {kind} mount at {target} can have no propagation: only bind mounts have one.")
    if mount.propagation and mount.propagation not in PROPAGATIONS:
        raise InvalidInput(
            f"The propagation of the mount at {target} is {mount.propagation!r}: it must be one of "
            f"{', '.join(PROPAGATIONS)}."
        )
