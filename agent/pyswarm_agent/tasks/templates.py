"""`{{.Task.Slot}}` and its kin in hostname, env and mounts: the part of Go's templates that Swarm's users write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INDEX = re.compile(r'index\s+\.Service\.Labels\s+(?:"([^"]*)"|`([^`]*)`)')
_LABEL = re.compile(r"\.Service\.Labels\.([A-Za-z0-9_]+)")


class TemplateError(ValueError):
    """One sentence for the user."""


@dataclass(frozen=True, slots=True)
class Names:
    """What templates may ask for."""

    task_id: str
    task_name: str  # web.1
    slot: int
    service_id: str
    service_name: str
    node_id: str
    hostname: str
    service_labels: Mapping[str, str] = field(default_factory=dict)
    platform_os: str = "linux"
    platform_architecture: str = ""

    def fields(self) -> dict[str, str]:
        return {
            ".Task.ID": self.task_id,
            ".Task.Name": self.task_name,
            ".Task.Slot": str(self.slot),
            ".Service.ID": self.service_id,
            ".Service.Name": self.service_name,
            ".Node.ID": self.node_id,
            ".Node.Hostname": self.hostname,
            ".Node.Platform.OS": self.platform_os,
            ".Node.Platform.Architecture": self.platform_architecture,
        }


def expand(text: str, names: Names, where: str) -> str:
    """`where` is named in the error: "the environment variable NAME". A label that is not set expands to nothing.

    Raises TemplateError for what is no known field."""
    if "{{" not in text:
        return text
    known = names.fields()

    def value(match: re.Match[str]) -> str:
        action = match[1].strip().strip("-").strip()
        if action in known:
            return known[action]
        if label := _INDEX.fullmatch(action) or _LABEL.fullmatch(action):
            return names.service_labels.get(next(g for g in label.groups() if g is not None), "")
        raise TemplateError(
            f'unknown template {match[0]} in {where}: use one of {", ".join(known)} or index .Service.Labels "NAME"'
        )

    return _ACTION.sub(value, text)
