"""What buildah says while it pushes → which layers were sent, and which were there already. Pure.

Without a terminal it does not say which layers it skipped, so it is run with its debug log, of which these lines are
read; errors are its last lines that are no log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COPYING = re.compile(r"^Copying blob (sha256:[0-9a-f]+)")
_SKIPPING = re.compile(r'msg="Skipping blob (sha256:[0-9a-f]+) \(already present\)')
_LOG = re.compile(r'^time="[^"]*" level=(\w+) msg="?(.*?)"?$')
_PREFIX = re.compile(r"^(Error: )?(error )?", re.IGNORECASE)


@dataclass(slots=True)
class PushReport:
    layers: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def hear(self, line: str) -> str | None:
        """Takes one line in; returns what is to be told right away."""
        if match := _COPYING.match(line):
            if match[1] not in self.layers:
                self.layers.append(match[1])
            return None
        if match := _SKIPPING.search(line):
            self.skipped.add(match[1])
            return f"layer {short(match[1])}: already there"
        if match := _LOG.match(line):
            if match[1] in ("error", "fatal"):
                self.errors.append(match[2].replace('\\"', '"'))
        elif line.lower().startswith("error"):
            self.errors.append(line)
        return None

    @property
    def sent(self) -> list[str]:
        return [layer for layer in self.layers if layer not in self.skipped]

    def summary(self) -> str:
        return f"{_count(len(self.sent))} sent, {_count(len(self.layers) - len(self.sent))} already there"

    def why(self) -> str:
        """The error, as one sentence's end."""
        if not self.errors:
            return "buildah gave no reason"
        return " ".join(_PREFIX.sub("", self.errors[-1]).split())


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _count(number: int) -> str:
    return f"{number} layer{'' if number == 1 else 's'}"
