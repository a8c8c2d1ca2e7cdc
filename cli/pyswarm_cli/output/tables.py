"""Plain tables as Docker prints them: columns as wide as their widest cell, three spaces between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ID_LENGTH = 12


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """No newline at the end. Cells are one line each: newlines and tabs in them become spaces."""
    cells = [list(headers)] + [
        [" ".join(cell.split()) if cell.strip() != cell or "\n" in cell or "\t" in cell else cell for cell in row]
        for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def short_id(identifier: str, no_trunc: bool = False) -> str:
    return identifier if no_trunc else identifier[:ID_LENGTH]


def ellipsis(text: str, width: int, no_trunc: bool = False) -> str:
    return text if no_trunc or len(text) <= width else text[: width - 1] + "…"
