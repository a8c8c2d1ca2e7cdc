"""What a daemon does on SIGHUP (`systemctl reload`): it takes the level of its logs from its file of variables anew.

Everything else in that file holds from the daemon's next start.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from pathlib import Path

from pyswarm_core.log import get_logger, set_level

log = get_logger("reload")

ENV_FILE = "PYSWARM_ENV_FILE"  # in the environment: where the daemon's variables came from


def on_hangup(variable: str) -> None:
    """From now on, on the running loop. `variable`: the level's name in the file. Never ends the daemon."""
    path = os.environ.get(ENV_FILE, "")
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_level, path, variable)


def reload_level(path: str, variable: str) -> None:
    if not path:
        log.warning("nothing to reload", reason=f"{ENV_FILE} is not set, so there is no file to read")
        return
    try:
        level = value_of(Path(path).read_text(), variable) or "info"
        set_level(level)
    except (OSError, ValueError) as error:
        log.error("the log level stays as it was", file=path, reason=str(error))
    else:
        log.warning("log level set", level_set=level, file=path)


def value_of(text: str, variable: str) -> str:
    """Of NAME="VALUE" lines, the last one's; "" = it is not there. ValueError: a quote is not closed."""
    found = ""
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name == variable:
            found = "".join(shlex.split(value))
    return found
