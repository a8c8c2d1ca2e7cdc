"""`user` and `groups` of a container → numbers, by its image's /etc/passwd and /etc/group and Docker's rules. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyswarm_agent.interfaces import ContainerFailure

_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def resolve(user: str, groups: Sequence[str], passwd: str, group: str) -> User:
    """`user` is NAME|UID[:GROUP|GID], "" for root. ContainerFailure (final) for a name that the image does not have.

    A number need not be in the files: its group then is 0 and its home /. The groups that list the user count only
    when `user` names no group itself.
    """
    name, _, group_name = user.partition(":")
    name = name or "0"
    entry = _passwd_entry(name, passwd)
    if entry is not None:
        found_name, uid, gid, home = entry
    elif (number := _id(name)) is not None:
        found_name, uid, gid, home = "", number, 0, "/"
    else:
        raise ContainerFailure(f"the image's /etc/passwd has no user {name!r}", final=True)
    additional: list[int] = []
    if group_name:
        gid = _group_id(group_name, group)
    elif found_name:
        additional = [number for _, number, members in _group_entries(group) if found_name in members]
    additional += [_group_id(each, group) for each in groups]
    # The main group, too: else a process could drop it, and with it what it forbids.
    return User(uid, gid, tuple(dict.fromkeys((gid, *additional))), home or "/")


def _id(text: str) -> int | None:
    if not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    if number > _LARGEST_ID:
        raise ContainerFailure(f"the user or group number {text} is out of range: at most {_LARGEST_ID}", final=True)
    return number


def _passwd_entry(name: str, passwd: str) -> tuple[str, int, int, str] | None:
    """A name comes before a number: a user may be called 1000."""
    number = _id(name)
    by_number = None
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) < 4 or not fields[2].isdigit() or not fields[3].isdigit():
            continue
        entry = (fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else "")
        if fields[0] == name:
            return entry
        if by_number is None and entry[1] == number:
            by_number = entry
    return by_number


def _group_entries(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdigit():
            yield fields[0], int(fields[2]), fields[3].split(",") if len(fields) > 3 else []


def _group_id(name: str, group: str) -> int:
    for found, number, _ in _group_entries(group):
        if found == name:
            return number
    if (number_given := _id(name)) is not None:
        return number_given
    raise ContainerFailure(f"the image's /etc/group has no group {name!r}", final=True)
