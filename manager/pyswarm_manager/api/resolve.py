"""From an image's tag to its digest and platforms, by asking its registry through skopeo.

Resolving is a service to the user, not a condition: where it fails, the deploy goes on unpinned, with a warning.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pyswarm_core.errors import InvalidInput
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api.images import DOCKER_HUB, Reference

log = get_logger("api.resolve")

TIMEOUT = 15.0  # seconds, for all of it
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_REASON = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
# skopeo's texts, in words of ours.
_KNOWN = (
    ("manifest unknown", "the registry has no such tag"),
    ("name unknown", "the registry has no such repository"),
    ("not found", "the registry has no such image"),
    ("unauthorized", "the registry refuses it without other credentials"),
    ("authentication required", "the registry wants credentials: use --with-registry-auth"),
    ("denied", "the registry denies access"),
    ("connection refused", "the registry cannot be reached: connection refused"),
    ("no such host", "the registry's name is unknown"),
    ("i/o timeout", "the registry does not answer"),
    ("no route to host", "the registry cannot be reached: no route to it"),
    ("does not look like a tls handshake", "the registry speaks no TLS, and is not configured as insecure"),
    ("server gave HTTP response to HTTPS client", "the registry speaks no TLS, and is not configured as insecure"),
    ("certificate", "the registry's TLS certificate is not trusted by this manager"),
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """`platforms` is empty when the registry does not tell."""

    digest: str
    platforms: tuple[spec.Platform, ...]


class Unresolved(Exception):
    """Why, in a few words for a warning."""


class Resolver(Protocol):
    async def resolve(self, reference: Reference, auth: pb.RegistryAuth | None) -> Resolved:
        """Raises Unresolved."""
        ...


class SkopeoResolver:
    """Equal requests at the same time are one. Nothing is remembered: a tag may move at any moment."""

    def __init__(self, *, program: str = "skopeo", timeout: float = TIMEOUT) -> None:
        self._program = program
        self._timeout = timeout
        self._under_way: dict[tuple[str, str, str], asyncio.Task[Resolved]] = {}

    async def resolve(self, reference: Reference, auth: pb.RegistryAuth | None) -> Resolved:
        key = (str(reference), auth.username if auth else "", auth.password if auth else "")
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._resolve(reference, auth))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def _resolve(self, reference: Reference, auth: pb.RegistryAuth | None) -> Resolved:
        try:
            async with asyncio.timeout(self._timeout):
                with _credentials(auth) as options:
                    raw = await self._inspect([*options, "--raw"], f"{reference.name}:{reference.tag}")
                    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
                    manifest = _parse(raw)
                    if _is_index(manifest):
                        return Resolved(digest, _platforms_of_index(manifest))
                    config = _parse(await self._inspect([*options, "--config"], f"{reference.name}@{digest}"))
                    return Resolved(digest, _platforms([config]))
        except TimeoutError:
            raise Unresolved(f"the registry did not answer within {self._timeout:g} s") from None
        except OSError as error:
            raise Unresolved(f"{self._program} cannot be run on the manager: {error.strerror}") from None

    async def _inspect(self, options: Sequence[str], image: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            self._program,
            "inspect",
            *options,
            f"docker://{image}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise Unresolved(reason(err.decode(errors="replace")))
        return out


def reason(stderr: str) -> str:
    """Of all that skopeo prints, what the user can do something with."""
    text = stderr.strip()
    messages = _REASON.findall(text)
    said = messages[-1].replace('\\"', '"') if messages else (text.splitlines() or ["no reason given"])[-1]
    lower = said.lower()
    known = next((ours for theirs, ours in _KNOWN if theirs.lower() in lower), "")
    return known or said.rpartition(": ")[2][:200]


@contextmanager
def _credentials(auth: pb.RegistryAuth | None) -> Iterator[list[str]]:
    """Options for skopeo. Credentials never appear in an argument list, which everybody on the host can read."""
    if auth is None or not auth.username:
        yield ["--no-creds"]
        return
    token = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
    hosts = [auth.host] if auth.host not in (DOCKER_HUB, "index.docker.io") else ["https://index.docker.io/v1/"]
    content = json.dumps({"auths": {host: {"auth": token} for host in hosts}})
    descriptor, name = tempfile.mkstemp(prefix="pyswarm-auth-")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        yield ["--authfile", name]
    finally:
        Path(name).unlink(missing_ok=True)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unresolved("the registry's answer is not a manifest")
    return value


def _is_index(manifest: dict[str, Any]) -> bool:
    return manifest.get("mediaType") in _INDEXES or isinstance(manifest.get("manifests"), list)


def _platforms_of_index(index: dict[str, Any]) -> tuple[spec.Platform, ...]:
    entries = index.get("manifests")
    return _platforms([m.get("platform") for m in entries if isinstance(m, dict)] if isinstance(entries, list) else [])


def _platforms(described: Sequence[Any]) -> tuple[spec.Platform, ...]:
    """Without duplicates, and without the "unknown" of attestations."""
    found: dict[tuple[str, str, str], spec.Platform] = {}
    for one in described:
        if not isinstance(one, dict):
            continue
        system, architecture, variant = (str(one.get(k) or "") for k in ("os", "architecture", "variant"))
        if architecture and system and "unknown" not in (system, architecture):
            found[system, architecture, variant] = spec.Platform(os=system, architecture=architecture, variant=variant)
    return tuple(found.values())


async def pin(
    container: spec.ContainerSpec, reference: Reference, resolver: Resolver, auth: pb.RegistryAuth | None
) -> str:
    """Sets digest and platforms. Returns a warning, "" when all is well. A digest that the user wrote is kept."""
    del container.platforms[:]
    container.digest = reference.digest
    if reference.digest:
        return ""
    try:
        resolved = await resolver.resolve(reference, auth)
    except Unresolved as error:
        log.info("image not resolved", image=str(reference), reason=error)
        return (
            f"image {reference} could not be resolved to a digest ({error}): each node pulls the tag as it finds it, "
            "and may get a different image"
        )
    container.digest = resolved.digest
    container.platforms.extend(resolved.platforms)
    return ""


def check_auth(auth: pb.RegistryAuth) -> None:
    if not auth.host or not auth.username:
        raise InvalidInput("The registry credentials have no host or no user name: log in to the registry again.")
