"""${VAR}, ${VAR:-default} and their kin, by Compose's rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pyswarm_core.errors import InvalidInput

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*", re.ASCII)
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


def interpolate(text: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> str:
    """`missing` is told of each variable that is not set and has no default: it counts as empty.

    $$ is a dollar sign. Raises InvalidInput for anything else that follows a dollar sign, and for ${VAR:?text}."""
    if "$" not in text:
        return text
    found, end = _expand(text, 0, variables, missing, nested=False)
    assert end == len(text)
    return found


def _expand(
    text: str, at: int, variables: Mapping[str, str], missing: Callable[[str], None], *, nested: bool
) -> tuple[str, int]:
    """Up to the end, or `nested` to the closing brace (not included)."""
    parts: list[str] = []
    while at < len(text):
        character = text[at]
        if nested and character == "}":
            return "".join(parts), at
        if character != "$":
            parts.append(character)
            at += 1
            continue
        following = text[at + 1 : at + 2]
        if following == "$":
            parts.append("$")
            at += 2
        elif following == "{":
            value, at = _braces(text, at, variables, missing)
            parts.append(value)
        elif match := _NAME.match(text, at + 1):
            parts.append(_value(match[0], variables, missing))
            at = match.end()
        else:
            raise InvalidInput(f"'{text[at : at + 10]}' is no variable; write $$ for a dollar sign")
    if nested:
        raise InvalidInput(f"a ${{ in '{text[:60]}' is not closed")
    return "".join(parts), at


def _braces(text: str, at: int, variables: Mapping[str, str], missing: Callable[[str], None]) -> tuple[str, int]:
    match = _NAME.match(text, at + 2)
    if match is None:
        raise InvalidInput(f"'{text[at : at + 12]}' names no variable; write ${{NAME}}, or $$ for a dollar sign")
    name, after = match[0], match.end()
    if text[after : after + 1] == "}":
        return _value(name, variables, missing), after + 1
    operator = next((op for op in _OPERATORS if text.startswith(op, after)), None)
    if operator is None:
        if after >= len(text):
            raise InvalidInput(f"a ${{ in '{text[:60]}' is not closed")
        raise InvalidInput(f"'{text[at : after + 3]}' is not understood; write ${{{name}:-default}}")
    quiet: list[str] = []
    # What is inside counts, and complains, only when it is used.
    inner, closing = _expand(text, after + len(operator), variables, quiet.append, nested=True)
    has = bool(variables.get(name)) if operator[0] == ":" else name in variables
    if operator[-1] == "+":
        value = inner if has else ""
    elif has:
        value = variables[name]
    elif operator[-1] == "?":
        raise InvalidInput(f"the variable {name} is needed{f': {inner}' if inner else '; set it'}")
    else:
        value = inner
    if value == inner:
        for unset in quiet:
            missing(unset)
    return value, closing + 1


def _value(name: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> str:
    if name not in variables:
        missing(name)
    return variables.get(name, "")
