"""Looking into a container's root file system from outside of it, without ever being led out by what its image holds:
symbolic links and `..` are resolved as inside (openat2, RESOLVE_IN_ROOT), and only regular files are read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pyswarm_agent.runtime import kernel

_LARGEST_FILE = 4 << 20


class Rootfs:
    """Errors are OSError. To be closed."""

    def __init__(self, path: Path) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._root)

    def __enter__(self) -> Rootfs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_text(self, path: str) -> str:
        """At most 4 MiB of it; empty when there is no such regular file."""
        try:
            fd = kernel.open_in_root(self._root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return ""
            return file.read(_LARGEST_FILE).decode("utf-8", "replace")

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[Path | None]:
        """A path (/proc/self/fd/N) that is the folder as the container will see it; None when there is none."""
        try:
            fd = kernel.open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            yield None
            return
        try:
            yield Path(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def make_folders(self, path: str) -> None:
        """Makes `path` and its parents, 0755 root; what is there stays as it is. NotADirectoryError, or
        FileNotFoundError for a link that leads nowhere."""
        done = ""
        parent = os.dup(self._root)
        try:
            for part in Path(path).parts:
                if part in ("/", ""):
                    continue
                done = f"{done}/{part}"
                try:
                    child = kernel.open_in_root(self._root, done, os.O_PATH | os.O_DIRECTORY)
                except FileNotFoundError:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=parent)
                        os.chmod(part, 0o755, dir_fd=parent)  # whatever the umask
                    child = kernel.open_in_root(self._root, done, os.O_PATH | os.O_DIRECTORY)
                os.close(parent)
                parent = child
        finally:
            os.close(parent)
