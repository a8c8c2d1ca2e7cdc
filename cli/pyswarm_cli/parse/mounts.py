"""Mounts: type=bind,source=/srv,target=/data,readonly and Compose's short form ./data:/data:ro."""

from __future__ import annotations

import posixpath
import re

from pyswarm_cli.parse.fields import boolean, fields
from pyswarm_cli.parse.numbers import size
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

TYPES = {"bind": spec.MOUNT_TYPE_BIND, "volume": spec.MOUNT_TYPE_VOLUME, "tmpfs": spec.MOUNT_TYPE_TMPFS}
PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_KNOWN = {"type", "source", "target", "readonly", "bind-propagation", "tmpfs-size", "tmpfs-mode"}
_ALIASES = {"src": "source", "destination": "target", "dst": "target", "ro": "readonly"}
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def mount(text: str) -> spec.Mount:
    if "=" not in text:
        raise InvalidInput(f"'{text}' is not a mount; write type=bind,source=/on/host,target=/in/container")
    given = fields(text, "mount", _KNOWN, aliases=_ALIASES, bare={"readonly"})
    return build(
        type_=given.get("type", "volume"),
        source=given.get("source", ""),
        target=given.get("target", ""),
        read_only=boolean(given["readonly"], f"readonly of the mount '{text}'") if "readonly" in given else False,
        propagation=given.get("bind-propagation", ""),
        tmpfs_size=size(given["tmpfs-size"]) if "tmpfs-size" in given else 0,
        tmpfs_mode=mode(given["tmpfs-mode"], text) if "tmpfs-mode" in given else 0,
        text=text,
    )


def build(
    *,
    type_: str,
    source: str,
    target: str,
    read_only: bool = False,
    propagation: str = "",
    tmpfs_size: int = 0,
    tmpfs_mode: int = 0,
    text: str,
) -> spec.Mount:
    """Checks what belongs to which type. `text` is how the user wrote it, for the error."""
    if type_ not in TYPES:
        raise InvalidInput(f"the type of the mount '{text}' must be bind, volume or tmpfs, not '{type_}'")
    if not target.startswith("/"):
        raise InvalidInput(f"the mount '{text}' needs an absolute path in the container as its target")
    if posixpath.normpath(target) == "/":
        raise InvalidInput(f"the mount '{text}' would hide the container's whole file system")
    templated = "{{" in source
    if type_ == "bind" and not source.startswith("/") and not templated:
        raise InvalidInput(f"the mount '{text}' needs an absolute path on the host as its source")
    if type_ == "volume" and source and not templated and not _VOLUME.fullmatch(source):
        hint = "; for a path of the host write type=bind" if source.startswith(("/", ".", "~")) else ""
        raise InvalidInput(f"'{source}' in the mount '{text}' cannot be a volume's name{hint}")
    if type_ == "tmpfs" and source:
        raise InvalidInput(f"the mount '{text}' is a tmpfs and so has no source")
    if type_ != "tmpfs" and (tmpfs_size or tmpfs_mode):
        raise InvalidInput(f"the mount '{text}' has tmpfs options but its type is {type_}")
    if propagation:
        if type_ != "bind":
            raise InvalidInput(f"the mount '{text}' has a propagation but its type is {type_}")
        if propagation not in PROPAGATIONS:
            raise InvalidInput(f"the propagation of the mount '{text}' must be one of {', '.join(PROPAGATIONS)}")
    return spec.Mount(
        type=TYPES[type_],
        source=source,
        target=posixpath.normpath(target),
        read_only=read_only,
        propagation=propagation,
        tmpfs_size=tmpfs_size,
        tmpfs_mode=tmpfs_mode,
    )


def mode(text: str, whole_text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise InvalidInput(f"the mode '{text}' of the mount '{whole_text}' must be octal, as in 1777")
    return int(text, 8)
