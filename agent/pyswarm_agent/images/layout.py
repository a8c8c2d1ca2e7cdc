"""Reads containers-storage's overlay layout, which skopeo, buildah, podman and CRI-O share.

    overlay-images/images.json      [{id, digest, names, layer, big-data-names, …}]
    overlay-images/ID/=BASE64       an image's config, under the name of its digest
    overlay/LAYER/link              the short name: overlay/l/SHORT → ../LAYER/diff
    overlay/LAYER/lower             l/SHORT:l/SHORT…, the layers below, nearest first

Files are replaced by rename, so a reader needs no lock.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_agent.images import config
from pyswarm_agent.interfaces import Image


class StoredImage(msgspec.Struct):
    """One entry of images.json, as far as it is needed."""

    id: str
    digest: str = ""
    names: list[str] = []
    layer: str = ""
    big_data: list[str] = msgspec.field(name="big-data-names", default_factory=list)

    def has_digest(self, digest: str) -> bool:
        """The manifest's own, or that of an index which it was chosen from."""
        return (
            self.digest == digest
            or f"manifest-{digest}" in self.big_data
            or any(name.endswith(f"@{digest}") for name in self.names)
        )


class Layout:
    """`root` is the storage's root. OSError when a file is missing that must be there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._index = root / "overlay-images" / "images.json"
        self._decoder = msgspec.json.Decoder(list[StoredImage])
        self._read_at: tuple[int, int] | None = None
        self._images: list[StoredImage] = []

    @property
    def overlay(self) -> Path:
        return self._root / "overlay"

    def images(self) -> list[StoredImage]:
        """Read anew only when the file is another."""
        try:
            info = self._index.stat()
            state = (info.st_mtime_ns, info.st_ino)
            if state != self._read_at:
                self._images = self._decoder.decode(self._index.read_bytes())
                self._read_at = state
        except FileNotFoundError:
            return []
        return self._images

    def by_digest(self, digest: str) -> StoredImage | None:
        return next((image for image in self.images() if image.has_digest(digest)), None)

    def by_name(self, name: str) -> StoredImage | None:
        return next((image for image in self.images() if name in image.names), None)

    def by_id(self, image_id: str) -> StoredImage | None:
        return next((image for image in self.images() if image.id == image_id), None)

    def load(self, image: StoredImage) -> Image:
        """With its config. OSError, or ValueError when the config is broken."""
        name = f"sha256:{image.id}"
        encoded = base64.b64encode(name.encode()).decode()
        blob = (self._root / "overlay-images" / image.id / f"={encoded}").read_bytes()
        parsed: dict[str, Any] = msgspec.json.decode(blob, type=dict[str, Any])
        return Image(id=image.id, digest=image.digest, config=config.parse(parsed))

    def lower(self, image: StoredImage) -> str:
        """For overlayfs' lowerdir, relative to `overlay`: the image's layers, topmost first."""
        if not image.layer:
            return ""
        folder = self.overlay / image.layer
        top = f"l/{(folder / 'link').read_text().strip()}"
        below = folder / "lower"
        return f"{top}:{below.read_text().strip()}" if below.exists() else top
