"""Image references, as the manager reads them: what the command line needs of that."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput


def check(reference: str) -> str:
    """The same text, if it is a reference at all."""
    full(reference)
    return reference


def full(reference: str) -> str:
    """With Docker's defaults: web → docker.io/library/web:latest."""
    from pyswarm_manager.api.images import parse_reference

    return str(parse_reference(reference))


def registry(reference: str) -> str:
    """HOST[:PORT] of the registry."""
    from pyswarm_manager.api.images import parse_reference

    return parse_reference(reference).registry


def familiar(reference: str) -> str:
    """docker.io/library/web:latest → web:latest."""
    return reference.removeprefix("docker.io/library/").removeprefix("docker.io/")


def check_registry(host: str) -> str:
    """HOST or HOST:PORT, without a scheme or path."""
    if "://" in host or "/" in host:
        raise InvalidInput(f"'{host}' is not a registry; write HOST or HOST:PORT, without https:// and path")
    if not re.fullmatch(r"([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:\d{1,5})?", host, re.ASCII):
        raise InvalidInput(f"'{host}' is not a registry; write HOST or HOST:PORT")
    return host
