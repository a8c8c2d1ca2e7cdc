"""Plain tables as Docker prints them: columns as wide as their widest cell, three spaces between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ID_LENGTH = 12
_ONE_LINE = dict.fromkeys(map(ord, "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """No newline at the end. A cell is one line: line breaks and tabs in it become spaces."""
    cells = [list(headers), *([cell.translate(_ONE_LINE) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def short_id(identifier: str, no_trunc: bool = False) -> str:
    return identifier if no_trunc else identifier[:ID_LENGTH]


def ellipsis(text: str, width: int, no_trunc: bool = False) -> str:
    return text if no_trunc or len(text) <= width else text[: width - 1] + "…"
