"""skopeo's command lines, and what its lines mean."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pyswarm_agent.images import errors
from pyswarm_agent.images.reference import Reference
from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.interfaces import ImageFailure
from pyswarm_agent.runtime import invoke
from pyswarm_core.v1 import objects_pb2 as pb

_DELETE_TIMEOUT = 120.0


class Skopeo:
    """Copies into, and deletes from, one containers-storage."""

    def __init__(self, settings: ImageSettings, root: Path, run_root: Path, scratch: Path) -> None:
        self._settings = settings
        # Without skip_mount_home every process that opens the storage leaves a bind mount behind.
        self._store = f"containers-storage:[overlay@{root}+{run_root}:overlay.skip_mount_home=true]"
        self._program: Sequence[str] = [
            settings.skopeo,
            # Not /var/tmp, where nobody would find what a pull that was killed has left.
            f"--tmpdir={scratch}",
            *(["--registries-conf", settings.registries_conf] if settings.registries_conf else []),
        ]

    async def copy(self, reference: Reference, auth: pb.RegistryAuth | None, progress: Callable[[str], None]) -> None:
        """ImageFailure when the image cannot be had."""
        lines = ProgressLines(progress)
        with _auth_file(reference, auth) as auth_fd:
            try:
                done = await invoke.run(
                    [
                        *self._program,
                        "copy",
                        *(["--src-authfile", f"/proc/self/fd/{auth_fd}"] if auth_fd is not None else []),
                        f"docker://{reference.source}",
                        f"{self._store}{reference.name}",
                    ],
                    timeout=self._settings.pull_timeout,
                    pass_fds=[auth_fd] if auth_fd is not None else [],
                    on_output=lines.feed,
                )
            except TimeoutError:
                raise ImageFailure(
                    f"the image {reference} was not pulled within {self._settings.pull_timeout:.0f} s", final=False
                ) from None
            except OSError as error:
                raise ImageFailure(f"skopeo cannot be run on this host: {error.strerror}", final=False) from error
        if done.code:
            raise errors.translate(done.output, reference)

    async def delete(self, image_id: str) -> None:
        """OSError or TimeoutError when it cannot be run; ValueError, with skopeo's words, when it refuses."""
        done = await invoke.run([*self._program, "delete", f"{self._store}@{image_id}"], timeout=_DELETE_TIMEOUT)
        if done.code:
            raise ValueError(done.output.strip()[-400:])


class ProgressLines:
    """skopeo's output, in pieces → a message for each step: it starts several layers at a time."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._rest = b""
        self._layers: set[bytes] = set()

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if found := re.match(rb"Copying blob (\S+)", line):
                self._layers.add(found[1])
                self._report(f"pulling layer {len(self._layers)}")
            elif line.startswith(b"Copying config"):
                self._report(f"pulled {len(self._layers)} layers")
            elif line.startswith(b"Writing manifest"):
                self._report("storing the image")


@contextlib.contextmanager
def _auth_file(reference: Reference, auth: pb.RegistryAuth | None) -> Iterator[int | None]:
    """A descriptor of a file in memory: credentials touch no disk, and nothing is left of them whoever is killed. None
    without any: then the host's own are used, if it has some."""
    if auth is None or not (auth.username or auth.password):
        yield None
        return
    pair = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
    content = json.dumps({"auths": {auth.host or reference.host: {"auth": pair}}})
    fd = os.memfd_create("auth", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, content.encode())
        yield fd
    finally:
        os.close(fd)
