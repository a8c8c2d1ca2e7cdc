"""The command line's context of root on a manager's host: made when the host becomes a manager, kept up to date, and
removed when it is none any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyswarm_core import contexts, tls
from pyswarm_core.errors import NotFound


def create(folder: Path, managers: Sequence[str], identity: tls.Identity) -> None:
    """Creates or replaces it, and selects it where none is."""
    name, root = _place(folder)
    pems = (identity.ca_pem.decode(), identity.cert_pem.decode(), identity.key_pem.decode())
    contexts.save(name, contexts.Context(tuple(managers), *pems), root)
    if contexts.current(root) is None:
        contexts.select(name, root)


def exists(folder: Path) -> bool:
    name, root = _place(folder)
    return name in contexts.names(root)


def remove(folder: Path) -> None:
    """It, and its selection."""
    name, root = _place(folder)
    contexts.remove(name, root)


def follow(folder: Path, managers: Sequence[str]) -> bool:
    """True: it was changed. Nothing happens where there is none any more: the user has removed it.

    InvalidInput: its files make no sense."""
    name, root = _place(folder)
    try:
        return contexts.set_managers(name, managers, root)
    except NotFound:
        return False


def _place(folder: Path) -> tuple[str, str]:
    return folder.name, str(folder.parent.parent)
