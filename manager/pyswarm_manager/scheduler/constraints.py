"""Placement constraints, `node.labels.zone==a`, with Swarm's meaning.

Values compare without regard to case; a label that a node does not have is the empty string, so `node.labels.zone!=a`
lets a node without the label `zone` through. All constraints of a spec must hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

_FIELDS = ("node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch")
_LABEL_PREFIX = "node.labels."
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_./-]*[A-Za-z0-9_])?")
_ROLES = {spec.NODE_ROLE_WORKER: "worker", spec.NODE_ROLE_MANAGER: "manager"}
# `uname -m` names that users write, and the names that images and nodes use.
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armhf": "arm"}


def architecture(name: str) -> str:
    """The OCI name of an architecture, whichever of its usual names is given."""
    lowered = name.lower()
    return _ARCHITECTURES.get(lowered, lowered)


@dataclass(frozen=True, slots=True)
class Constraint:
    """`key` is one of the fields (lower case) or `node.labels.` and a label's name; `equal` False means !=."""

    key: str
    equal: bool
    value: str

    def holds(self, node: pb.Node) -> bool:
        return (_value(self.key, node).casefold() == self.value.casefold()) is self.equal

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"


@lru_cache(maxsize=4096)
def parse(text: str) -> Constraint:
    """InvalidInput, with what is wrong and what can be written, when `text` is no constraint."""
    key, operator, value = _split(text)
    key, value = key.strip(), value.strip()
    if not operator:
        raise InvalidInput(f"Constraint {text!r} has neither == nor !=: write it as node.labels.zone==a.")
    if not value:
        raise InvalidInput(f"Constraint {text!r} has no value after {operator}: write node.labels.zone{operator}a.")
    if not value.isprintable():
        raise InvalidInput(f"Constraint {text!r} has a character in its value that cannot be printed.")
    lowered = key.lower()
    if lowered in _FIELDS:
        if lowered == "node.role" and value.lower() not in _ROLES.values():
            raise InvalidInput(f"Constraint {text!r} can never tell nodes apart: node.role is worker or manager.")
        if lowered == "node.platform.arch":
            value = architecture(value)
        return Constraint(lowered, operator == "==", value)
    if lowered.startswith(_LABEL_PREFIX):
        label = key[len(_LABEL_PREFIX) :]
        if not _LABEL.fullmatch(label):
            raise InvalidInput(
                f"Constraint {text!r} names no valid label: a label's name has letters, digits, dots, dashes, slashes "
                "and underscores, and begins and ends with a letter, digit or underscore."
            )
        return Constraint(_LABEL_PREFIX + label, operator == "==", value)
    if lowered.startswith("engine.labels."):
        raise InvalidInput(
            f"Constraint {text!r} asks for a label of the engine, which hosts here do not have: give the node a label "
            "with `pyswarm node update --label-add` and write node.labels."
        )
    fields = ", ".join(_FIELDS)
    raise InvalidInput(f"Constraint {text!r} asks for {key!r}, which nodes do not have: use {fields} or node.labels.X.")


def matches(constraints: Sequence[str], node: pb.Node) -> bool:
    """All hold. A text that cannot be parsed (the API refuses those) matches no node."""
    try:
        return all(parse(text).holds(node) for text in constraints)
    except InvalidInput:
        return False


def _split(text: str) -> tuple[str, str, str]:
    """At the first operator, whichever of the two it is."""
    found = re.search(r"==|!=", text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found.group(), text[found.end() :]


def _value(key: str, node: pb.Node) -> str:
    if key.startswith(_LABEL_PREFIX):
        return node.spec.labels.get(key[len(_LABEL_PREFIX) :], "")
    if key == "node.id":
        return node.id
    if key == "node.hostname":
        return node.description.hostname
    if key == "node.role":
        return _ROLES[node.spec.role]
    if key == "node.platform.os":
        return node.description.platform.os
    return architecture(node.description.platform.architecture)
