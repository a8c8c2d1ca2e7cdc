"""What a flag is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyswarm_core.v1 import spec_pb2 as spec

Options = Mapping[str, Any]  # flag's key → parsed value (a list where `repeated`); a flag not given is not in it
Apply = Callable[[spec.ServiceSpec, Any, Options], None]


@dataclass(frozen=True, slots=True)
class Flag:
    """`parse` None: a switch, whose value is True or False. `split`: one text makes several values (port ranges)."""

    name: str  # without the dashes: health-cmd
    help: str
    apply: Apply
    parse: Callable[[str], Any] | None = str
    metavar: str = "TEXT"
    short: str = ""
    repeated: bool = False
    split: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class ListFlag:
    """A flag whose field is a list. In `deploy` and `create` it replaces the field; `update` has a pair of flags
    instead, NAME-add and NAME-rm. `same(existing, removed)` tells what -rm means, `key_of` what -add replaces."""

    name: str
    help: str
    parse: Callable[[str], Any]
    metavar: str
    get: Callable[[spec.ServiceSpec], list[Any]]
    put: Callable[[spec.ServiceSpec, list[Any]], None]
    key_of: Callable[[Any], Any]
    parse_rm: Callable[[str], Any] = str
    same: Callable[[Any, Any], bool] | None = None
    short: str = ""
    split: bool = False

    def replacing(self) -> Flag:
        def apply(service: spec.ServiceSpec, values: Sequence[Any], _: Options) -> None:
            self.put(service, self._merged([], values))

        return Flag(self.name, self.help, apply, self.parse, self.metavar, self.short, True, self.split)

    def adding(self) -> Flag:
        def apply(service: spec.ServiceSpec, values: Sequence[Any], _: Options) -> None:
            self.put(service, self._merged(self.get(service), values))

        help_ = f"Add or replace: {self.help[0].lower()}{self.help[1:]}"
        return Flag(f"{self.name}-add", help_, apply, self.parse, self.metavar, "", True, self.split)

    def removing(self) -> Flag:
        same = self.same or (lambda existing, removed: self.key_of(existing) == removed)

        def apply(service: spec.ServiceSpec, values: Sequence[Any], _: Options) -> None:
            self.put(service, [x for x in self.get(service) if not any(same(x, value) for value in values)])

        return Flag(
            f"{self.name}-rm", f"Remove: {self.help[0].lower()}{self.help[1:]}", apply, self.parse_rm, "KEY", "", True
        )

    def _merged(self, old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
        merged = {self.key_of(value): value for value in old}
        for value in new:
            merged[self.key_of(value)] = value
        return list(merged.values())
