"""Typed access to the tree: what is wrong is said with file, line and the key's whole name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NoReturn, TypeVar

from pyswarm_cli.compose.interpolate import interpolate
from pyswarm_cli.compose.loader import ComposeError, Entry, Map, Scalar, Seq, Value
from pyswarm_cli.parse.fields import boolean
from pyswarm_cli.parse.numbers import whole
from pyswarm_core.errors import InvalidInput

T = TypeVar("T")
Handler = Callable[[Value, str], None]


class Reader:
    def __init__(self, path: str, variables: Mapping[str, str]) -> None:
        self.path = path
        self.variables = variables
        self.warnings: list[str] = []

    def fail(self, line: int, message: str) -> NoReturn:
        raise ComposeError(self.path, line, message)

    def map(self, value: Value, where: str) -> Map:
        if isinstance(value, Scalar) and value.is_null:
            return Map({}, value.line)
        if not isinstance(value, Map):
            self.fail(value.line, f"{where} must be a mapping")
        return value

    def items(self, value: Value, where: str) -> tuple[Value, ...]:
        if isinstance(value, Scalar) and value.is_null:
            return ()
        if not isinstance(value, Seq):
            self.fail(value.line, f"{where} must be a list")
        return value.items

    def text(self, value: Value, where: str) -> str:
        """Variables are replaced here."""
        if not isinstance(value, Scalar):
            self.fail(value.line, f"{where} must be a single value, not a {_kind(value)}")

        def missing(name: str) -> None:
            warning = f"{self.path}:{value.line}: the variable {name} is not set, and counts as empty"
            if warning not in self.warnings:
                self.warnings.append(warning)

        try:
            return interpolate(value.text, self.variables, missing)
        except InvalidInput as error:
            self.fail(value.line, f"{where}: {error}")

    def parsed(self, value: Value, where: str, parse: Callable[[str], T]) -> T:
        """By one of the parsers of the command line."""
        text = self.text(value, where)
        try:
            return parse(text)
        except InvalidInput as error:
            self.fail(value.line, f"{where}: {error}")

    def boolean(self, value: Value, where: str) -> bool:
        return self.parsed(value, where, lambda text: boolean(text, "it"))

    def whole(self, value: Value, where: str, lowest: int, highest: int) -> int:
        return self.parsed(value, where, lambda text: whole(text, "it", lowest, highest))

    def strings(self, value: Value, where: str) -> list[str]:
        return [self.text(item, where) for item in self.items(value, where)]

    def one_or_many(self, value: Value, where: str) -> list[str]:
        return self.strings(value, where) if isinstance(value, Seq) else [self.text(value, where)]

    def pairs(self, value: Value, where: str) -> Iterator[tuple[str, str | None, int]]:
        """A mapping, or a list of KEY=VALUE: (key, value or None, line)."""
        if isinstance(value, Seq):
            for item in value.items:
                text = self.text(item, where)
                key, equals, rest = text.partition("=")
                yield key, rest if equals else None, item.line
            return
        for entry in self.map(value, where).entries.values():
            null = isinstance(entry.value, Scalar) and entry.value.is_null
            yield entry.key, None if null else self.text(entry.value, f"{where}.{entry.key}"), entry.line

    def walk(
        self, value: Value, where: str, handlers: Mapping[str, Handler], refused: Mapping[str, str] | None = None
    ) -> None:
        """Each key goes to its handler. A key without a value says nothing, as in Compose."""
        for entry in self.map(value, where).entries.values():
            name = f"{where}.{entry.key}"
            if entry.key in handlers:
                if not (isinstance(entry.value, Scalar) and entry.value.is_null):
                    handlers[entry.key](entry.value, name)
            elif refused and entry.key in refused:
                self.fail(entry.line, f"{name} is not supported: {refused[entry.key]}")
            elif not entry.key.startswith("x-"):
                self.unknown(entry, where, handlers)

    def unknown(self, entry: Entry, where: str, known: Collection[str]) -> NoReturn:
        longer = [key for key in known if key.startswith(entry.key)]
        close = longer or difflib.get_close_matches(entry.key, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        self.fail(entry.line, f"{where} has an unknown key '{entry.key}'{hint}")


def _kind(value: Value) -> str:
    return "list" if isinstance(value, Seq) else "mapping"
