"""Credentials of registries, in `auth.json` of the configuration directory: 0600, in the form that Docker, skopeo and
buildah read, {"auths": {"registry.lab:5000": {"auth": base64("user:password")}}}. Never shown."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from pyswarm_cli.parse import references
from pyswarm_core import contexts, files
from pyswarm_core.errors import InvalidInput, NotFound
from pyswarm_core.v1 import objects_pb2 as pb


def file() -> Path:
    return contexts.config_dir() / "auth.json"


def hosts() -> list[str]:
    return sorted(_read())


def save(host: str, username: str, password: str) -> None:
    entries = _read()
    entries[host] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    _write(entries)


def remove(host: str) -> None:
    """Raises NotFound when there is nothing to forget."""
    entries = _read()
    if entries.pop(host, None) is None:
        known = ", ".join(sorted(entries)) or "none"
        raise NotFound(f"there are no credentials for {host}; stored are those of: {known}")
    _write(entries)


def find(host: str) -> tuple[str, str] | None:
    """(username, password)."""
    entry = _read().get(host)
    if entry is None:
        return None
    try:
        username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (KeyError, TypeError, ValueError, binascii.Error):
        colon = ""
    if not colon:
        raise InvalidInput(f"the credentials for {host} in {file()} are damaged; run 'pyswarm registry login {host}'")
    return username, password


def for_image(image: str) -> pb.RegistryAuth:
    """What is sent along with a service that needs it. Raises NotFound when nobody has logged in there."""
    host = references.registry(image)
    found = find(host)
    if found is None:
        raise NotFound(f"there are no credentials for {host}; run 'pyswarm registry login {host}' first")
    return pb.RegistryAuth(host=host, username=found[0], password=found[1])


def _read() -> dict[str, Any]:
    try:
        document = json.loads(file().read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidInput(f"{file()} cannot be read: {error}; remove it and log in again") from None
    entries = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise InvalidInput(f"{file()} cannot be read: 'auths' must be an object; remove it and log in again")
    return entries


def _write(entries: dict[str, Any]) -> None:
    contexts.private_dir(contexts.config_dir())
    files.put(file(), json.dumps({"auths": entries}, indent=2) + "\n", 0o600)
