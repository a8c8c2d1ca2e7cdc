"""The command line's context of root on a manager's host: made when the host becomes a manager, kept up to date, and
removed when it is none any more. Its format is that of `pyswarm_cli.contexts`, which a test compares."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pyswarm_core import tls
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.membership import daemons

DOCUMENT, CURRENT = "context.json", "current"


def create(folder: Path, managers: Sequence[str], identity: tls.Identity) -> None:
    """Creates or replaces it, and selects it where none is."""
    for part in (folder.parent.parent, folder.parent, folder):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {"managers": list(managers), "hosts": {}, "registry_ca": {}}
    for name, pem in (("ca", identity.ca_pem), ("cert", identity.cert_pem), ("key", identity.key_pem)):
        daemons.write({f"{name}.pem": pem.decode()}, folder, 0o600)
    daemons.write({DOCUMENT: json.dumps(document, indent=2) + "\n"}, folder, 0o600)
    current = folder.parent.parent / CURRENT
    if not current.exists():
        daemons.write({CURRENT: folder.name + "\n"}, current.parent, 0o600)


def remove(folder: Path) -> None:
    """It, and its selection."""
    current = folder.parent.parent / CURRENT
    if current.exists() and current.read_text().strip() == folder.name:
        current.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def follow(folder: Path, managers: Sequence[str]) -> bool:
    """True: it was changed. Nothing happens where there is none any more: the user has removed it.

    PreconditionFailed: its file makes no sense."""
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        known = list(document["managers"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreconditionFailed(f"the context in {folder} cannot be read ({error}); make it anew") from None
    if known == list(managers):
        return False
    document["managers"] = list(managers)
    daemons.write({DOCUMENT: json.dumps(document, indent=2) + "\n"}, folder, 0o600)
    return True
