"""Unix seconds as people read them and as JSON carries them."""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (2 * 365 * 86400, 30 * 86400, "month"),
)


def rfc3339(at: float) -> str | None:
    """In UTC, to the microsecond; None for 0, which means that it did not happen."""
    if at <= 0:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def ago(at: float, now: float) -> str:
    """'3 minutes ago'. A time to come (clocks differ between hosts) is 'just now'."""
    seconds = now - at
    if seconds < 1:
        return "just now"
    return f"{span(seconds)} ago"


def span(seconds: float) -> str:
    for limit, unit, name in _STEPS:
        if seconds < limit:
            count = max(1, int(seconds // unit))
            return f"{count} {name}{'' if count == 1 else 's'}"
    years = int(seconds // (365 * 86400))
    return f"{years} years"
