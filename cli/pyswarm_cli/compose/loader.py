"""YAML → a tree that knows its lines and leaves scalars as they were written.

No YAML 1.1 guesses are made: `22:22` stays a text, and so do `on` and `1.10`; whoever reads a value knows what it is to
be. Anchors, aliases and merge keys work; a key twice, and other documents after the first, are errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from pyswarm_core.errors import PyswarmError

_NULLS = ("", "~", "null", "Null", "NULL")
_PLAIN_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!", None}
_KNOWN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")} | {"!"}
DEEPEST = 100
MOST_CHARACTERS = 1_000_000


class ComposeError(PyswarmError):
    """`file:line: what is wrong`."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    line: int
    plain: bool = True  # not quoted

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    line: int  # of the key
    value: Value


@dataclass(frozen=True, slots=True)
class Map:
    entries: dict[str, Entry]
    line: int


@dataclass(frozen=True, slots=True)
class Seq:
    items: tuple[Value, ...]
    line: int


Value = Scalar | Map | Seq


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[object]] = {}


def load(text: str, path: str) -> Map:
    """The file's top mapping; an empty file is an empty one."""
    if len(text) > MOST_CHARACTERS:
        raise ComposeError(path, 0, "the file is too large to be a Compose file")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "this is not YAML"
        raise ComposeError(path, mark.line + 1 if mark else 0, f"this is not valid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        raise ComposeError(path, line, f"this is not valid YAML: {error.reason}") from None
    except RecursionError:
        raise ComposeError(path, 0, "it is nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return Map({}, 1)
    top = _Tree(path).convert(node, 0)
    if isinstance(top, Scalar) and top.is_null:
        return Map({}, 1)
    if not isinstance(top, Map):
        raise ComposeError(path, top.line, "a Compose file is a mapping, with the key 'services'")
    return top


@dataclass(slots=True)
class _Tree:
    path: str
    done: dict[int, Value] = field(default_factory=dict)  # an alias is converted once, however often it is used
    open: set[int] = field(default_factory=set)

    def convert(self, node: yaml.Node, depth: int) -> Value:
        if id(node) in self.done:
            return self.done[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self.open:
            raise ComposeError(self.path, line, "an anchor contains itself")
        if depth > DEEPEST:
            raise ComposeError(self.path, line, "it is nested too deeply")
        if node.tag not in _PLAIN_TAGS and node.tag not in _KNOWN_TAGS:
            raise ComposeError(self.path, line, f"the tag '{node.tag}' is not known here; remove it")
        self.open.add(id(node))
        value: Value
        if isinstance(node, yaml.ScalarNode):
            value = Scalar(node.value, line, not node.style and node.tag in _PLAIN_TAGS)
        elif isinstance(node, yaml.SequenceNode):
            value = Seq(tuple(self.convert(item, depth + 1) for item in node.value), line)
        else:
            value = self._mapping(node, line, depth)
        self.open.discard(id(node))
        self.done[id(node)] = value
        return value

    def _mapping(self, node: yaml.Node, line: int, depth: int) -> Map:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ComposeError(self.path, at, "a key must be a plain text")
            key = key_node.value
            value = self.convert(value_node, depth + 1)
            if key == "<<" and not key_node.style:
                merged = self._merge(value, at) | merged
            elif key in own:
                raise ComposeError(self.path, at, f"the key '{key}' is there twice, first in line {own[key].line}")
            else:
                own[key] = Entry(key, at, value)
        return Map(merged | own, line)

    def _merge(self, value: Value, line: int) -> dict[str, Entry]:
        """Of several, the first one wins."""
        sources = value.items if isinstance(value, Seq) else (value,)
        found: dict[str, Entry] = {}
        for source in sources:
            if not isinstance(source, Map):
                raise ComposeError(self.path, line, "<< merges mappings only")
            found = source.entries | found
        return found
