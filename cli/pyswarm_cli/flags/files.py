"""Reading --env-file. Everything that is wrong with a file ends a command with 1, not 125."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyswarm_core.errors import PyswarmError


def read(options: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    """The same options, paths of --env-file replaced by what is in the files."""
    if "env_file" not in options:
        return options
    return {**options, "env_file": [entries(path, environ) for path in options["env_file"]]}


def entries(path: str, environ: dict[str, str]) -> list[str]:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise PyswarmError(f"the file {path} of --env-file cannot be read: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise PyswarmError(f"the file {path} of --env-file is not UTF-8 text") from None
    return docker_lines(text, path, environ)


def docker_lines(text: str, path: str, environ: dict[str, str]) -> list[str]:
    """Docker's rules for --env-file: no quoting, # starts a comment line, KEY alone takes the caller's own value."""
    from pyswarm_cli.parse import pairs

    found = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            value = pairs.env(stripped, environ)
        except PyswarmError as error:
            raise PyswarmError(f"{path}:{number}: {error}") from None
        if value is not None:
            found.append(value)
    return found
