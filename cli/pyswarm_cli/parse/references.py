"""Image references, as far as the command line needs them: which registry, and what to show."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput

DOCKER_HUB = "docker.io"
_REFERENCE = re.compile(
    r"(?:(?P<host>(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)


def check(reference: str) -> str:
    """The same text, if it is a reference at all."""
    if len(reference) > 500 or not _REFERENCE.fullmatch(reference):
        hint = " (a repository's name is in lower case)" if reference != reference.lower() else ""
        raise InvalidInput(f"'{reference}' is not an image; write REPOSITORY[:TAG], or HOST/REPOSITORY[:TAG]{hint}")
    return reference


def registry(reference: str) -> str:
    """HOST[:PORT] of the registry: docker.io unless the first part looks like a host."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return DOCKER_HUB


def familiar(reference: str) -> str:
    """docker.io/library/web:latest → web:latest."""
    return reference.removeprefix("docker.io/library/").removeprefix("docker.io/")
