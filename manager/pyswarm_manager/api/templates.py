"""Which `{{…}}` the agent will be able to fill in: an unknown one is refused here, before a task is made of it."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput

FIELDS = (
    ".Service.ID",
    ".Service.Name",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
)
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LABEL = re.compile(r'index\s+\.Service\.Labels\s+("[^"]*"|`[^`]*`)|\.Service\.Labels\.[A-Za-z0-9_]+')


def check_templates(where: str, text: str) -> None:
    """InvalidInput for a template that is none of the known ones."""
    for match in _ACTION.finditer(text):
        action = match[1].strip().strip("-").strip()
        if action not in FIELDS and not _LABEL.fullmatch(action):
            raise InvalidInput(
                f"Template {match[0]} in {where} is unknown: use one of {', '.join(FIELDS)} or "
                'index .Service.Labels "NAME".'
            )


def filled(text: str) -> str:
    """Every template replaced by a letter: what remains can be checked for its syntax."""
    return _ACTION.sub("x", text)
