"""Small files that are whole or not there, also after a power cut. Imports little: every command line pays for it."""
# ruff: noqa: PTH105, PTH108

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def put(path: str | Path, content: str | bytes, mode: int = 0o644) -> None:
    """Creates or replaces it in one step. It never has more than this mode, whatever the umask. Raises OSError."""
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")  # noqa: PTH118 - threads may write it at once
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
