"""Mounts a task's root file system: overlayfs on an image's layers, by mount(2) itself (0.14 ms).

The layers are named relative to the folder that they are in, because all of mount(2)'s options must fit one page. A
working directory belongs to the whole process, so this is done in a thread that has one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyswarm_agent.interfaces import ImageFailure
from pyswarm_agent.runtime import kernel

_PAGE = os.sysconf("SC_PAGE_SIZE")
# What a container writes ends with it, so that unmounting need not wait for the disk.
_VOLATILE = ",volatile"
_UPPER = "upper-"


class Mounter:
    """In `folder`, one folder a task: `merged` (the root file system), `work`, and `upper-IMAGE`, whose name says which
    image is in use (a file for that would cost each start another write to the disk)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        kernel.scatter(folder)
        self._thread = ThreadPoolExecutor(1, "pyswarm-mount", initializer=_own_working_directory)

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def merged(self, task_id: str) -> Path:
        return self._folder / task_id / "merged"

    def mounted(self) -> dict[str, str]:
        """Task id → id of the image that it uses."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                names = [path.name for path in Path(entry.path).glob(f"{_UPPER}*")]
                found[entry.name] = names[0].removeprefix(_UPPER) if names else ""
        return found

    async def mount(self, task_id: str, image_id: str, layers: Path, lower: str) -> Path:
        """ImageFailure when overlayfs refuses."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._mount, task_id, image_id, layers, lower)

    async def unmount(self, task_id: str) -> None:
        """Deletes what was written, too. OSError when something cannot be deleted."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._detach, task_id)
        # Apart, as it may take a while: the next mount does not wait for it.
        await asyncio.to_thread(self._delete, task_id)

    def _mount(self, task_id: str, image_id: str, layers: Path, lower: str) -> Path:
        folder, merged = self._folder / task_id, self.merged(task_id)
        if os.path.ismount(merged):
            return merged
        upper, work = folder / f"{_UPPER}{image_id}", folder / "work"
        for path in (folder, merged, upper, work):
            path.mkdir(parents=path == folder, exist_ok=True)
        upper.chmod(0o755)  # the mode of the container's /, whatever the umask
        if not lower:  # an image without layers: nothing but what the container writes
            kernel.mount(str(upper), str(merged), "", kernel.MS_BIND, "")
            return merged
        options = f"lowerdir={lower},upperdir={_escaped(upper)},workdir={_escaped(work)}"
        if len(options) + len(_VOLATILE) >= _PAGE:
            raise ImageFailure("the image has more layers than this host can mount: build it with fewer", final=True)
        os.chdir(layers)
        try:
            try:
                kernel.mount("overlay", str(merged), "overlay", 0, options + _VOLATILE)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a kernel before 5.10 knows no volatile
                    raise
                kernel.mount("overlay", str(merged), "overlay", 0, options)
        except OSError as error:
            raise ImageFailure(
                f"the image's root file system cannot be mounted: {error.strerror}", final=False
            ) from error
        finally:
            os.chdir("/")
        return merged

    def _detach(self, task_id: str) -> None:
        while True:
            try:
                kernel.unmount(str(self.merged(task_id)), kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT):  # not mounted (any more), not there
                    return
                raise

    def _delete(self, task_id: str) -> None:
        folder = self._folder / task_id
        if os.path.ismount(folder / "merged"):  # never delete through a mount
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _own_working_directory() -> None:
    kernel.unshare(kernel.CLONE_FS)


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
