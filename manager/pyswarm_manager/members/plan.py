"""Which of etcd's members may be added, given a vote, or removed, and what is to be done next. Pure.

Whatever is done, a majority of those that have a vote answers before and after. One change at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

ABANDONED = 120.0  # seconds after which a member that was added and never started is removed again; it may come later


@dataclass(frozen=True, slots=True)
class Seen:
    """One member, and whether it answers now. `name` is its node's id; "" = added, but it has not started yet."""

    id: int
    name: str
    is_learner: bool
    answers: bool


@dataclass(frozen=True, slots=True)
class Promote:
    member: Seen


@dataclass(frozen=True, slots=True)
class Remove:
    member: Seen
    why: str


Step = Promote | Remove


def quorum(voters: int) -> int:
    return voters // 2 + 1


def lost_majority(seen: Sequence[Seen]) -> str:
    """A clause when nothing can be changed at all; else ""."""
    voters = [m for m in seen if not m.is_learner]
    answering = sum(m.answers for m in voters)
    if answering >= quorum(len(voters)):
        return ""
    return f"etcd has no majority: {answering} of its {len(voters)} members answer"


def refuse_removal(seen: Sequence[Seen], member_id: int, before: Collection[int] = ()) -> str:
    """Why this member may not be removed, one clause; "" = it may. `before`: members that are to go before it."""
    if reason := lost_majority(seen):
        return reason
    left = [m for m in seen if not m.is_learner and m.id not in before]
    if not any(m.id == member_id for m in left):
        return ""  # it has no vote
    rest = [m for m in left if m.id != member_id]
    answering = sum(m.answers for m in rest)
    if not rest:
        return "it is the last member of etcd"
    if answering < quorum(len(rest)):
        return f"of the {len(rest)} members of etcd that would be left {answering} answer, and {quorum(len(rest))} must"
    return ""


def refuse_addition(seen: Sequence[Seen]) -> str:
    """Why no learner may be added now, one clause; "" = one may."""
    if reason := lost_majority(seen):
        return reason
    waiting = next((m for m in seen if m.is_learner), None)
    if waiting is not None:
        return f"another member ({waiting.name or 'not started yet'}) has no vote yet, and they come one at a time"
    return ""


def suspects(
    seen: Sequence[Seen], leaving: Collection[str], unstarted: Mapping[int, float], own: str
) -> tuple[Seen, ...]:
    """Who may have to go: members of nodes that are to be workers or were removed, and those that never came. `own`:
    the deciding manager's node; whoever leads gives that up before its own member goes. `unstarted`: id → seconds."""
    return tuple(
        m
        for m in seen
        if (m.name and m.name in leaving and m.name != own)
        or (not m.name and m.is_learner and unstarted.get(m.id, 0.0) >= ABANDONED)
    )


def step(
    seen: Sequence[Seen], leaving: Collection[str], unstarted: Mapping[int, float], own: str
) -> tuple[Step | None, str]:
    """What to do now, and why something that is due is not done: a clause."""
    reason = ""
    for member in suspects(seen, leaving, unstarted, own):
        refused = refuse_removal(seen, member.id)
        if not refused:
            why = "its node is no manager any more" if member.name else "it was added and never started"
            return Remove(member, why), ""
        reason = reason or f"the member of {member.name or 'a node that never came'} stays for now: {refused}"
    for member in seen:
        if member.is_learner and member.name and member.name not in leaving and not lost_majority(seen):
            return Promote(member), reason
    return None, reason
