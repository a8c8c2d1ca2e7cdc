"""Image references: what skopeo is to be asked for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyswarm_agent.interfaces import ImageFailure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`source` follows docker://, `name` is what the image is called in the store."""

    repository: str  # registry.lab:5000/team/web
    tag: str
    digest: str

    @property
    def host(self) -> str:
        return self.repository.partition("/")[0]

    @property
    def source(self) -> str:
        # Not both: skopeo refuses a tag beside a digest.
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def name(self) -> str:
        return self.source

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


def parse(image: str, digest: str) -> Reference:
    """`image` is fully qualified, as the API stores it. ImageFailure (final) for what is no reference."""
    bare, _, own_digest = image.partition("@")
    digest = digest or own_digest
    repository, colon, tag = bare.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        repository, tag = bare, "latest"
    if not _NAME.fullmatch(repository) or "/" not in repository or not _TAG.fullmatch(tag):
        raise ImageFailure(f"{image!r} is no image reference: use REGISTRY/NAME:TAG", final=True)
    if digest and not _DIGEST.fullmatch(digest):
        raise ImageFailure(f"{digest!r} is no image digest: use sha256: and 64 hexadecimal digits", final=True)
    return Reference(repository, tag, digest)
