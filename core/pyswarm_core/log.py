"""Logs: an event name and key-values, on the standard library's logging, as logfmt or JSON lines.

    log = get_logger("agent.session")
    log.info("session opened", node=node_id, address=address)

Nothing is printed below WARNING until `configure` is called, once per process, in its `app` or `main`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

ROOT = "pyswarm"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_RESERVED = frozenset({"ts", "level", "logger", "event", "error", "traceback"})
_NEEDS_QUOTES = re.compile(r'[\s="\\\x00-\x1f\x7f]|^$')
_NO_VALUES: Mapping[str, object] = {}


class Logger:
    """Costs one level check when its level is off, so that debug lines may stay in hot paths."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, logger: logging.Logger, bound: Mapping[str, object] = _NO_VALUES) -> None:
        self._logger = logger
        self._bound = bound

    def bind(self, **values: object) -> Logger:
        """A logger that adds these to each of its lines."""
        return Logger(self._logger, {**self._bound, **values})

    def is_enabled(self, level: str) -> bool:
        return self._logger.isEnabledFor(_LEVELS[level])

    def debug(self, event: str, /, **values: object) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._emit(logging.DEBUG, event, values)

    def info(self, event: str, /, **values: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._emit(logging.INFO, event, values)

    def warning(self, event: str, /, **values: object) -> None:
        if self._logger.isEnabledFor(logging.WARNING):
            self._emit(logging.WARNING, event, values)

    def error(self, event: str, /, **values: object) -> None:
        if self._logger.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, values)

    def exception(self, event: str, /, **values: object) -> None:
        """An error line with the exception that is being handled, and its traceback."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._emit(logging.ERROR, event, values, with_exception=True)

    def _emit(self, level: int, event: str, values: Mapping[str, object], *, with_exception: bool = False) -> None:
        if self._bound:
            values = {**self._bound, **values}
        # No %-formatting: there are no args, so a "%" in the event is harmless.
        self._logger.log(level, event, exc_info=with_exception, extra={"values": values})


def get_logger(name: str) -> Logger:
    """`name` is area.noun: "agent.session"."""
    return Logger(logging.getLogger(f"{ROOT}.{name}"))


def configure(level: str = "info", *, json: bool = False, stream: TextIO | None = None) -> None:
    """Where logs go (None: standard error) and from which level on: debug, info, warning or error.

    May be called again; `set_level` alone is cheaper. Other libraries' lines come in the same format, from WARNING on.
    Raises ValueError for an unknown level.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_Json() if json else _Logfmt())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Takes effect at once, in all loggers."""
    try:
        number = _LEVELS[level.lower()]
    except KeyError:
        raise ValueError(f"unknown log level {level!r}: use one of {', '.join(_LEVELS)}") from None
    logging.getLogger(ROOT).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring again replaces it and leaves others (pytest's) alone."""


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix(ROOT + "."),
        "event": record.getMessage(),
    }
    for key, value in getattr(record, "values", _NO_VALUES).items():
        fields[f"{key}_" if key in _RESERVED and key in fields else key] = value
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = record.exc_info[1]
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(_text(item) for item in value)
    try:
        return str(value)
    except Exception:  # a line that cannot be printed whole must not end the work it tells about
        return f"<{type(value).__name__}>"


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = []
        for key, value in _fields(record).items():
            text = _text(value)
            parts.append(f"{key}={json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text}")
        return " ".join(parts)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            key: value if isinstance(value, (int, float, str)) or value is None else _text(value)
            for key, value in _fields(record).items()
        }
        return json.dumps(fields, ensure_ascii=False)
