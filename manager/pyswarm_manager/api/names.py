"""What names, keys and other short texts may look like. Each check raises InvalidInput with one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

from pyswarm_core.errors import InvalidInput

LONGEST_NAME = 63  # a DNS label's
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)
_ALIAS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
_NODE_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_./-]*[A-Za-z0-9_])?", re.ASCII)


def check_name(kind: str, name: str) -> None:
    """Of a service or network: Docker's rule, for names are DNS names too."""
    if not name:
        raise InvalidInput(f"The {kind} has no name.")
    if len(name) > LONGEST_NAME:
        raise InvalidInput(
            f"The {kind} name {name[:20]!r}… has {len(name)} characters: {LONGEST_NAME} are possible at most."
        )
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a {kind}: it must begin and end with a letter or digit, and have only "
            "letters, digits, dashes and underscores between."
        )


def check_hostname(what: str, name: str) -> None:
    """One or more DNS labels, 253 characters at most (a kernel takes 64, which the agent cuts to)."""
    if len(name) > 253 or not all(
        len(label) <= LONGEST_NAME and _HOST_LABEL.fullmatch(label) for label in name.split(".")
    ):
        raise InvalidInput(
            f"{what} {name!r} is not a host name: it must have letters, digits and dashes, in parts of at most "
            f"{LONGEST_NAME} characters that are separated by dots."
        )


def check_alias(name: str) -> None:
    if len(name) > 253 or not all(
        len(label) <= LONGEST_NAME and _ALIAS_LABEL.fullmatch(label) for label in name.split(".")
    ):
        raise InvalidInput(f"Network alias {name!r} is not a DNS name: use letters, digits, dashes and underscores.")


def check_labels(what: str, labels: Mapping[str, str]) -> None:
    for key in labels:
        if not key or key != key.strip() or not key.isprintable() or "=" in key:
            raise InvalidInput(f"{key!r} cannot be the key of a {what}: write it as com.example.team.")


def check_node_labels(labels: Mapping[str, str]) -> None:
    """Stricter: constraints must be able to name them."""
    for key in labels:
        if not _NODE_LABEL.fullmatch(key):
            raise InvalidInput(
                f"{key!r} cannot be the name of a node's label: it must have letters, digits, dots, dashes, slashes "
                "and underscores, and begin and end with a letter, digit or underscore."
            )


def check_address(what: str, text: str) -> None:
    try:
        ip_address(text)
    except ValueError as error:
        raise InvalidInput(f"{what} {text!r} is not an IP address.") from error
