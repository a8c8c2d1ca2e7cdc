"""One finding about this machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    ok: bool
    detail: str  # what was found, or what to do
    warns: bool = False  # not ok, but a node can live with it
    is_running: bool = False  # it is ok because a daemon of this host has it already
