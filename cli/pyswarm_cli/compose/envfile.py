""".env and env_file: KEY=VALUE lines with quotes, comments, `export` and variables. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyswarm_cli.compose.interpolate import interpolate
from pyswarm_cli.compose.loader import ComposeError
from pyswarm_core.errors import InvalidInput

_KEY = re.compile(r"(?:export[ \t]+)?([a-zA-Z_][a-zA-Z0-9_.-]*)[ \t]*", re.ASCII)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def parse(text: str, path: str, variables: Mapping[str, str]) -> dict[str, str | None]:
    """KEY alone has the value None. Values may use `variables` and the keys above them."""
    found: dict[str, str | None] = {}
    lines = text.replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        line, at = lines[number].strip(), number + 1
        number += 1
        if not line or line.startswith("#"):
            continue
        match = _KEY.match(line)
        if match is None:
            raise ComposeError(path, at, f"'{line[:40]}' is not KEY=VALUE")
        rest = line[match.end() :]
        if not rest:
            found[match[1]] = None
            continue
        if not rest.startswith("="):
            raise ComposeError(path, at, f"'{line[:40]}' is not KEY=VALUE")
        value = rest[1:].lstrip()
        if value[:1] in ("'", '"'):
            quote = value[0]
            while (end := _closing(value, quote)) < 0:
                if number >= len(lines):
                    raise ComposeError(path, at, f"the quote of {match[1]} is not closed")
                value += "\n" + lines[number]
                number += 1
            after = value[end + 1 :].strip()
            if after and not after.startswith("#"):
                raise ComposeError(path, at, f"there is text after the closing quote of {match[1]}")
            value = value[1:end]
            if quote == "'":
                found[match[1]] = value
                continue
            value = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), value, flags=re.DOTALL)
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
        known = {**{key: v for key, v in found.items() if v is not None}, **variables}
        try:
            found[match[1]] = interpolate(value, known, lambda _: None)
        except InvalidInput as error:
            raise ComposeError(path, at, str(error)) from None
    return found


def _closing(value: str, quote: str) -> int:
    """Where the closing quote is; -1 when it is not there. In double quotes a backslash protects."""
    at = 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return -1
