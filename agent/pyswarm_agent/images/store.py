"""This host's images: pulled once however many tasks wait, mounted for each task, deleted when the disk fills up."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pyswarm_agent.images import reference as references
from pyswarm_agent.images.layout import Layout, StoredImage
from pyswarm_agent.images.mounting import Mounter
from pyswarm_agent.images.reference import Reference
from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.images.skopeo import Skopeo
from pyswarm_agent.interfaces import Image, ImageFailure
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("agent.images")


class _Pull:
    """One pull under way. Whoever comes later hears the last message first."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[str], None]] = []
        self.last = ""
        self.task: asyncio.Task[Image] | None = None

    def report(self, message: str) -> None:
        self.last = message
        for listener in self.listeners:
            listener(message)


class ImageStore:
    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        root = settings.data_dir / "images"
        self._root = root
        self._uses = settings.data_dir / "image-uses"
        self._layout = Layout(root)
        scratch = settings.data_dir / "image-pulls"
        self._skopeo = Skopeo(settings, root, settings.run_dir / "images", scratch)
        self._mounter = Mounter(settings.data_dir / "rootfs")
        self._pulls: dict[tuple[str, bytes], _Pull] = {}
        self._slots = asyncio.Semaphore(settings.parallel_pulls)
        shutil.rmtree(scratch, ignore_errors=True)  # of an agent that was killed
        for folder in (root, self._uses, scratch, settings.data_dir / "rootfs"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # images hold set-id programs, which this host's users must not reach

    async def close(self) -> None:
        """Ends pulls that are under way."""
        tasks = [pull.task for pull in self._pulls.values() if pull.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._mounter.close()

    async def pull(
        self, image: str, digest: str, auth: pb.RegistryAuth | None, progress: Callable[[str], None]
    ) -> Image:
        """With a digest, an image that is here costs nothing. Without one the tag may have moved, so the registry is
        asked; when it cannot be, an image of that name that is here will do."""
        reference = references.parse(image, digest)
        if reference.digest and (stored := self._layout.by_digest(reference.digest)) is not None:
            return self._load(stored, reference)
        key = (reference.source, auth.SerializeToString(deterministic=True) if auth is not None else b"")
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull()
            pull.task = asyncio.create_task(self._pull(reference, auth, pull))
            pull.task.add_done_callback(lambda done: self._pull_done(key, done))
        elif pull.last:
            progress(pull.last)
        pull.listeners.append(progress)
        assert pull.task is not None
        try:
            # One caller that goes away does not end it for the others.
            return await asyncio.shield(pull.task)
        finally:
            pull.listeners.remove(progress)

    def _pull_done(self, key: tuple[str, bytes], task: asyncio.Task[Image]) -> None:
        self._pulls.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, also when nobody waits any more

    async def _pull(self, reference: Reference, auth: pb.RegistryAuth | None, pull: _Pull) -> Image:
        async with self._slots:
            pull.report(f"pulling {reference}")
            log.info("pulling", image=reference.source)
            began = time.monotonic()
            try:
                await self._skopeo.copy(reference, auth, pull.report)
            except ImageFailure as failure:
                stored = self._layout.by_name(reference.name)
                if failure.final or stored is None:
                    log.warning("pull failed", image=reference.source, reason=str(failure), final=failure.final)
                    raise
                log.warning("pull failed: the image that is here is used", image=reference.source, reason=str(failure))
                return self._load(stored, reference)
        log.info("pulled", image=reference.source, seconds=time.monotonic() - began)
        stored = self._layout.by_name(reference.name) or self._layout.by_digest(reference.digest or "-")
        if stored is None:
            raise ImageFailure(f"the image {reference} was pulled but is not in the store", final=False)
        return self._load(stored, reference)

    def _load(self, stored: StoredImage, reference: Reference) -> Image:
        try:
            image = self._layout.load(stored)
        except (OSError, ValueError) as error:
            raise ImageFailure(f"the config of the image {reference} cannot be read: {error}", final=False) from error
        self._use(image.id)
        return image

    async def mount(self, image: Image, task_id: str) -> Path:
        """ImageFailure when the image is gone or overlayfs refuses."""
        stored = self._layout.by_id(image.id)
        if stored is None:
            raise ImageFailure("the image is no longer on this host", final=False)
        try:
            lower = self._layout.lower(stored)
            path = await self._mounter.mount(task_id, image.id, self._layout.overlay, lower)
        except OSError as error:
            raise ImageFailure(f"the image's root file system cannot be made: {error}", final=False) from error
        self._use(image.id)
        return path

    async def unmount(self, task_id: str) -> None:
        """ImageFailure when something cannot be deleted; to be called again then."""
        try:
            await self._mounter.unmount(task_id)
        except OSError as error:
            raise ImageFailure(f"the task's root file system cannot be removed: {error}", final=False) from error

    def mounted(self) -> Sequence[str]:
        """Task ids that have a root file system here, for the clean-up after a crash."""
        return sorted(self._mounter.mounted())

    # ---- making room ----

    async def collect(self, keep: frozenset[str]) -> None:
        """Never one that a mount uses, or that was pulled or mounted a short time ago."""
        if not self._is_full():
            return
        in_use = {*keep, *self._mounter.mounted().values()}
        recent = time.time() - self._settings.keep_recent
        for used_at, image_id in sorted((self._used_at(image.id), image.id) for image in self._layout.images()):
            if image_id in in_use or used_at > recent:
                continue
            try:
                await self._skopeo.delete(image_id)
            except (OSError, TimeoutError, ValueError) as error:
                log.warning("image not deleted", image=image_id, error=error)
                continue
            (self._uses / image_id).unlink(missing_ok=True)
            log.info("image deleted to make room", image=image_id)
            if not self._is_full():
                return
        log.warning("the disk is still full: no image is left that could go", path=self._root)

    def _is_full(self) -> bool:
        disk = os.statvfs(self._root)
        total = disk.f_blocks - disk.f_bfree + disk.f_bavail  # as df: without what is kept for root
        return total > 0 and 1 - disk.f_bavail / total >= self._settings.full_at

    def _use(self, image_id: str) -> None:
        (self._uses / image_id).touch()

    def _used_at(self, image_id: str) -> float:
        """Unix seconds; 0 for never."""
        try:
            return (self._uses / image_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0
