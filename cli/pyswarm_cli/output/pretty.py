"""JSON-able objects for people: one field a line, nested ones indented, what is empty left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def pretty(value: Mapping[str, Any]) -> str:
    return "\n".join(_lines(value, ""))


def _lines(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, item in value.items():
        if item in (None, "", [], {}, 0, False):
            continue
        title = f"{indent}{key.replace('_', ' ')}:"
        if isinstance(item, Mapping):
            inner = list(_lines(item, f"{indent}  "))
            if inner:
                yield title
                yield from inner
        elif isinstance(item, list):
            if not any(isinstance(entry, Mapping) for entry in item):
                yield f"{title} {', '.join(str(entry) for entry in item)}"
                continue
            yield title
            for entry in item:
                lines = list(_lines(entry, f"{indent}    ")) or [f"{indent}    (empty)"]
                yield f"{indent}  - {lines[0].strip()}"
                yield from lines[1:]
        else:
            yield f"{title} {item}"
