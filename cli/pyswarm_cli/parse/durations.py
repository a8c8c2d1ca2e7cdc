"""Durations as Go and Docker write them: 90s, 1m30s, 1.5h, 250ms. Seconds as float."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)", re.ASCII)
LONGEST = 365 * 86400.0


def duration(text: str) -> float:
    """Seconds, 0 … one year. A bare number is refused, except 0: its unit is anybody's guess."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    if re.fullmatch(r"\d+(\.\d*)?", stripped, re.ASCII):
        raise InvalidInput(f"the duration '{text}' has no unit; did you mean {stripped}s?")
    if stripped.startswith("-"):
        raise InvalidInput(f"the duration '{text}' is negative; give one of 0s or more")
    position, seconds = 0, 0.0
    while position < len(stripped):
        part = _PART.match(stripped, position)
        if part is None:
            break
        seconds += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if not stripped or position < len(stripped):
        raise InvalidInput(f"'{text}' is not a duration; write 90s, 1m30s or 500ms")
    if seconds > LONGEST:
        raise InvalidInput(f"the duration '{text}' is longer than a year")
    return seconds


def positive_duration(text: str) -> float:
    seconds = duration(text)
    if seconds <= 0:
        raise InvalidInput(f"the duration '{text}' must be longer than 0s")
    return seconds


def show(seconds: float) -> str:
    """The shortest text that `duration` reads back: 1m30s, 250ms, 0s."""
    if seconds < 1 and seconds > 0:
        return f"{seconds * 1000:g}ms"
    whole, fraction = divmod(seconds, 1)
    hours, rest = divmod(int(whole), 3600)
    minutes, last = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    if last or fraction or not text:
        text += f"{last + fraction:g}s"
    return text
