"""Any exception → (one sentence, exit code). Imported only once something went wrong."""

from __future__ import annotations

import click

from pyswarm_cli import exits
from pyswarm_core.errors import PyswarmError


def explain(error: BaseException) -> tuple[str, int]:
    match error:
        case exits.Ended():
            return str(error), error.code
        case PyswarmError():
            return str(error), exits.ERROR
        case click.exceptions.NoArgsIsHelpError():
            names = ", ".join(getattr(error.ctx.command, "commands", {}))
            return _usage(click.UsageError(f"a command is missing: one of {names}", error.ctx)), exits.USAGE
        case click.UsageError():
            return _usage(error), exits.USAGE
        case click.Abort():
            return "interrupted", exits.INTERRUPTED
        case click.ClickException():
            return _line(error.format_message()), exits.ERROR
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{(error.strerror or str(error)).lower()}", exits.ERROR
        case UnicodeError():
            return f"the input is not UTF-8 text: {error.reason}" if hasattr(error, "reason") else str(
                error
            ), exits.ERROR
    what = _line(str(error)) or "no message"
    return (
        f"this is a fault of pyswarm itself, {type(error).__name__}: {what}; set PYSWARM_DEBUG=1 to see where, "
        "and report it"
    ), exits.ERROR


def _usage(error: click.UsageError) -> str:
    """click writes three lines with a capital and a full stop; this is one, and says where the help is."""
    sentence = _line(error.format_message()).rstrip(".").replace(". Did you", "; did you")
    sentence = sentence[:1].lower() + sentence[1:]
    if error.ctx is None:
        return sentence
    return f"{sentence} (see '{error.ctx.command_path} --help')"


def _line(text: str) -> str:
    return " ".join(text.split())
