"""Comma-separated fields, `type=bind,source=/a,readonly`: a comma inside is written by quoting the field, as in CSV."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyswarm_core.errors import InvalidInput


def fields(
    text: str,
    what: str,
    known: Collection[str],
    *,
    aliases: Mapping[str, str] | None = None,
    bare: Collection[str] = (),
    repeated: Collection[str] = (),
) -> dict[str, str]:
    """Key → value. A key alone is allowed only for `bare` ones and means true; a key twice only for `repeated` ones,
    whose values are joined by newlines."""
    import csv
    import difflib

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidInput(f"the {what} '{text}' cannot be read: {error}") from None
    result: dict[str, str] = {}
    for part in rows[0] if rows else []:
        raw, equals, value = part.strip().partition("=")
        key = (aliases or {}).get(raw.lower(), raw.lower())
        if key not in known:
            close = difflib.get_close_matches(key, [*known, *(aliases or {})], n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(sorted(known))}"
            raise InvalidInput(f"the {what} '{text}' has an unknown field '{raw}'; {hint}")
        if not equals and key not in bare:
            raise InvalidInput(f"the field '{raw}' of the {what} '{text}' needs a value; write {raw}=…")
        if key in result and key not in repeated:
            raise InvalidInput(f"the {what} '{text}' has the field '{raw}' twice")
        value = value if equals else "true"
        result[key] = f"{result[key]}\n{value}" if key in result else value
    return result


def boolean(text: str, what: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("true", "1", "yes", "on"):
        return True
    if lowered in ("false", "0", "no", "off"):
        return False
    raise InvalidInput(f"{what} must be true or false, not '{text}'")
