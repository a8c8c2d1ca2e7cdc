"""Image references, with Docker's defaults: `web` is docker.io/library/web:latest.

The grammar is the one of Docker's distribution: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. The first component is a registry
when it has a dot or a colon, is `localhost`, or has a capital (a repository cannot).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyswarm_core.errors import InvalidInput

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255  # registry and repository together, as in Docker

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(:[0-9]{{1,5}})?", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII)
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True)
class Reference:
    """`tag` is "" only when a digest and no tag was given; `digest` is "" when none was."""

    registry: str  # HOST[:PORT]
    repository: str  # library/web
    tag: str
    digest: str = ""

    @property
    def name(self) -> str:
        """docker.io/library/web"""
        return f"{self.registry}/{self.repository}"

    @property
    def image(self) -> str:
        """What a spec stores beside the digest: docker.io/library/web:latest"""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    def __str__(self) -> str:
        return f"{self.image}@{self.digest}" if self.digest else self.image


def parse_reference(text: str) -> Reference:
    """InvalidInput, with what is wrong with it."""
    if not text:
        raise InvalidInput("No image is named: write one as web, web:v1 or registry.example:5000/team/web:v1.")
    if text != text.strip() or any(character.isspace() for character in text):
        raise InvalidInput(f"Image {text!r} has blanks in it: write one as web:v1.")
    if "://" in text:
        raise InvalidInput(f"Image {text!r} must be named without {text.split('://')[0]}://.")
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(text, digest)
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, path = first, remainder
        _check_registry(text, registry)
    else:
        registry, path = DOCKER_HUB, rest
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidInput(
            f"Image {text!r} has no valid tag: a tag has up to 128 letters, digits, dots, dashes and underscores, and "
            "does not begin with a dot or dash."
        )
    _check_repository(text, repository, registry)
    if registry == DOCKER_HUB and "/" not in repository:
        if not at and not colon and re.fullmatch(r"[0-9a-f]{64}", repository):
            raise InvalidInput(f"Image {text!r} is an id and no name: nodes pull images by name.")
        repository = f"library/{repository}"
    return Reference(registry, repository, tag or ("" if at else DEFAULT_TAG), digest)


def _check_registry(text: str, registry: str) -> None:
    port = registry.rpartition(":")[2] if re.search(r":[0-9]+$", registry) else "1"
    if not _REGISTRY.fullmatch(registry) or not 1 <= int(port) <= 65535:
        raise InvalidInput(f"Image {text!r} has no valid registry: {registry!r} is not HOST or HOST:PORT.")


def _check_repository(text: str, repository: str, registry: str) -> None:
    if not repository:
        raise InvalidInput(f"Image {text!r} has no repository: write one as web, web:v1 or registry.example/web.")
    if repository != repository.lower():
        raise InvalidInput(f"Image {text!r} has capitals in its repository, which must be in lower case.")
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise InvalidInput(
                f"Image {text!r} is not valid: {component!r} must have lower-case letters and digits, with a dot, one "
                "or two underscores or dashes between them."
            )
    if len(registry) + 1 + len(repository) > LONGEST_NAME:
        raise InvalidInput(f"Image {text[:60]!r}… is too long: a name has at most {LONGEST_NAME} characters.")


def _check_digest(text: str, digest: str) -> None:
    algorithm, _, value = digest.partition(":")
    wanted = _HEX_LENGTHS.get(algorithm)
    if not _DIGEST.fullmatch(digest) or (wanted is not None and len(value) != wanted):
        raise InvalidInput(f"Image {text!r} has no valid digest: write it as @sha256: and 64 hexadecimal digits.")
