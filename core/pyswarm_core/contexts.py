"""Contexts: which cluster the command line talks to, with the certificates for it.

On disk, under `$PYSWARM_CONFIG_DIR`, or `$XDG_CONFIG_HOME/pyswarm`, or `~/.config/pyswarm`:

    current                        the selected context's name
    contexts/NAME/context.json     {"managers": ["10.90.0.11:2377"], "hosts": {"registry.lab": "10.90.0.1"},
                                    "registry_ca": {"registry.lab:5000": "PEM"}}
    contexts/NAME/{ca,cert,key}.pem

`root` is another place than that: an agent looks after root's. Directories are 0700 and files 0600. Imports little, for
every command that talks to a cluster pays for it: pathlib, with what it imports, costs 4 ms.
"""
# ruff: noqa: PTH102, PTH108, PTH111, PTH112, PTH113, PTH120, PTH123, PTH208

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pyswarm_core import files
from pyswarm_core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

_PEMS = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Context:
    """`managers`: HOST:PORT of each one's API. `ca`, `cert`, `key`: PEM text of mutual TLS. `hosts`: names → addresses
    that this cluster means without any DNS. `registry_ca`: registry HOST[:PORT] → PEM of the authority to trust."""

    managers: tuple[str, ...]
    ca: str
    cert: str
    key: str = field(repr=False)
    hosts: Mapping[str, str] = field(default_factory=dict)
    registry_ca: Mapping[str, str] = field(default_factory=dict)


def config_dir() -> Path:
    from pathlib import Path

    return Path(_root())


def save(name: str, context: Context, root: str = "") -> None:
    """Creates or replaces. Does not select it. Raises InvalidInput for a name that is no file name."""
    folder = _folder(name, root)
    private_dir(folder)
    for part in _PEMS:
        files.put(f"{folder}/{part}.pem", getattr(context, part), 0o600)
    _write_document(folder, context)


def set_managers(name: str, managers: Sequence[str], root: str = "") -> bool:
    """Whether that was a change. Its certificates are not touched, for they may just be renewed. Errors as `load`."""
    known = load(name, root)
    if known.managers == tuple(managers):
        return False
    _write_document(_folder(name, root), replace(known, managers=tuple(managers)))
    return True


def _write_document(folder: str, context: Context) -> None:
    document = {
        "managers": list(context.managers),
        "hosts": dict(context.hosts),
        "registry_ca": dict(context.registry_ca),
    }
    files.put(f"{folder}/context.json", json.dumps(document, indent=2) + "\n", 0o600)


def load(name: str, root: str = "") -> Context:
    """Raises NotFound (it lists the names there are), InvalidInput when the files make no sense."""
    folder = _folder(name, root)
    try:
        document = json.loads(_read(f"{folder}/context.json"))
        pems = {part: _read(f"{folder}/{part}.pem") for part in _PEMS}
    except FileNotFoundError as error:
        if os.path.isdir(folder):
            raise InvalidInput(
                f"context '{name}' is incomplete: {error.filename} is missing; import it again"
            ) from None
        known = ", ".join(names(root)) or "none yet"
        raise NotFound(f"there is no context '{name}'; known contexts: {known}") from None
    except ValueError as error:
        raise InvalidInput(f"context '{name}' cannot be read: {folder}/context.json: {error}") from None
    return from_document({**document, **pems} if isinstance(document, dict) else document, f"context '{name}'")


def names(root: str = "") -> list[str]:
    folder = f"{root or _root()}/contexts"
    try:
        return sorted(name for name in os.listdir(folder) if os.path.isfile(f"{folder}/{name}/context.json"))
    except FileNotFoundError:
        return []


def current(root: str = "") -> str | None:
    """The selected context's name; None when there is none."""
    try:
        return _read(f"{root or _root()}/current").strip() or None
    except FileNotFoundError:
        return None


def select(name: str | None, root: str = "") -> str | None:
    """Selects a context (None: none) and returns the name of the one that was selected before."""
    previous = current(root)
    marker = f"{root or _root()}/current"
    if name is not None:
        load(name, root)
        private_dir(root or _root())
        files.put(marker, name + "\n", 0o600)
    elif previous is not None:
        os.unlink(marker)
    return previous


def remove(name: str, root: str = "") -> None:
    """Deletes it; if it was selected, none is from now on. One that is not there is no error."""
    import shutil  # 5 ms that no other command needs

    folder = _folder(name, root)
    if current(root) == name:
        select(None, root)
    shutil.rmtree(folder, ignore_errors=True)


def resolve(name: str | None) -> tuple[str, Context]:
    """The context a command is to use: the one named, else the selected one."""
    chosen = name or current()
    if chosen is None:
        raise NotFound(
            "no context is selected, so there is no cluster to talk to; start one with 'pyswarm lab up', or import one "
            "with 'pyswarm context import'"
        )
    return chosen, load(chosen)


def to_document(context: Context) -> dict[str, Any]:
    """All of it, the private key included, as one JSON-able object: for export."""
    return {
        "managers": list(context.managers),
        "hosts": dict(context.hosts),
        "registry_ca": dict(context.registry_ca),
        "ca": context.ca,
        "cert": context.cert,
        "key": context.key,
    }


def from_document(document: object, where: str) -> Context:
    if not isinstance(document, dict):
        raise InvalidInput(f"{where} is not a context: an object is expected")
    managers = document.get("managers")
    if not isinstance(managers, list) or not managers or not all(isinstance(m, str) and m for m in managers):
        raise InvalidInput(f"{where} is not a context: 'managers' must list at least one HOST:PORT")
    maps: dict[str, dict[str, str]] = {}
    for name in ("hosts", "registry_ca"):
        value = document.get(name) or {}
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise InvalidInput(f"{where} is not a context: '{name}' must map names to strings")
        maps[name] = value
    pems: dict[str, str] = {}
    for part in _PEMS:
        value = document.get(part)
        if not isinstance(value, str) or "-----BEGIN" not in value:
            raise InvalidInput(f"{where} is not a context: '{part}' must be PEM text")
        pems[part] = value
    return Context(
        managers=tuple(managers),
        ca=pems["ca"],
        cert=pems["cert"],
        key=pems["key"],
        hosts=maps["hosts"],
        registry_ca=maps["registry_ca"],
    )


def private_dir(path: str | Path) -> None:
    """Makes it and its missing parents, 0700."""
    if os.path.isdir(path):
        return
    private_dir(os.path.dirname(path) or ".")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _root() -> str:
    if explicit := os.environ.get("PYSWARM_CONFIG_DIR"):
        return explicit
    if xdg := os.environ.get("XDG_CONFIG_HOME"):
        return f"{xdg}/pyswarm"
    return os.path.expanduser("~/.config/pyswarm")


def _folder(name: str, root: str = "") -> str:
    plain = name.isascii() and name[:1].isalnum() and len(name) <= 63
    if not plain or not all(character.isalnum() or character in "_.-" for character in name):
        raise InvalidInput(f"'{name}' cannot be a context's name: letters, digits, '.', '_' and '-' are allowed")
    return f"{root or _root()}/contexts/{name}"


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
