"""Who of etcd's members may go and who may come: never below a majority."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_manager.members.plan import (
    ABANDONED,
    Promote,
    Remove,
    Seen,
    lost_majority,
    quorum,
    refuse_addition,
    refuse_removal,
    step,
)


def members(answers: str, *, learners: str = "") -> list[Seen]:
    """One voter for each letter: y answers, n does not; then the learners."""
    voters = [Seen(i, f"n{i}", False, c == "y") for i, c in enumerate(answers, 1)]
    return voters + [Seen(100 + i, f"l{i}", True, c == "y") for i, c in enumerate(learners, 1)]


@pytest.mark.parametrize(
    ("answers", "target", "refused"),
    [
        ("y", 1, "last member"),
        ("yy", 1, ""),
        ("yyy", 1, ""),
        ("yyn", 1, "of the 2 members of etcd that would be left 1 answer, and 2 must"),
        ("yyn", 3, ""),  # the dead one
        ("ynn", 3, "no majority: 1 of its 3"),
        ("yn", 2, "no majority"),
        ("yyyyn", 1, ""),
        ("yyynn", 1, "3 must"),
        ("yyynn", 5, ""),
    ],
)
def test_removals(answers: str, target: int, refused: str) -> None:
    found = refuse_removal(members(answers), target)
    assert refused in found and bool(refused) == bool(found)


def test_removals_count_those_that_are_to_go_before() -> None:
    assert not refuse_removal(members("yyy"), 2, before=[1])
    assert "last member" in refuse_removal(members("yy"), 2, before=[1])
    assert "2 must" in refuse_removal(members("yyyn"), 2, before=[1])


def test_one_comes_at_a_time() -> None:
    assert not refuse_addition(members("y"))
    assert "one at a time" in refuse_addition(members("yyy", learners="y"))
    assert "no majority" in refuse_addition(members("yn"))


def test_a_learner_of_a_node_that_is_to_be_a_worker_goes() -> None:
    todo, _ = step(members("y", learners="y"), {"l1"}, {}, "n1")
    assert isinstance(todo, Remove) and todo.member.name == "l1"


def test_the_leaders_own_member_stays_until_another_leads() -> None:
    assert step(members("yyy"), {"n1"}, {}, "n1") == (None, "")
    todo, _ = step(members("yyy"), {"n1"}, {}, "n2")
    assert isinstance(todo, Remove) and todo.member.name == "n1"


def test_why_nothing_is_done_is_told() -> None:
    todo, reason = step(members("yyn"), {"n2"}, {}, "n1")
    assert todo is None and "n2 stays for now" in reason and "2 must" in reason


def test_one_that_never_came_makes_room_for_others() -> None:
    seen = [*members("y"), Seen(9, "", True, False)]
    assert step(seen, set(), {9: ABANDONED - 1}, "n1") == (None, "")
    todo, _ = step(seen, set(), {9: ABANDONED}, "n1")
    assert isinstance(todo, Remove) and todo.member.id == 9


MEMBERS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=9)


@settings(deadline=None)
@given(MEMBERS, st.data())
def test_no_step_costs_the_majority(flags: list[tuple[bool, bool, bool]], data: st.DataObject) -> None:
    """Steps until nothing more is done, while members fail and return, and a new one is asked for now and then."""
    seen = [Seen(i, f"n{i}", learner, answers) for i, (learner, answers, _) in enumerate(flags)]
    leaving = {f"n{i}" for i, (_, _, goes) in enumerate(flags) if goes}
    for number in range(len(seen) * 3):
        was_well = not lost_majority(seen)
        before = sum(not m.is_learner for m in seen)
        todo, _ = step(seen, leaving, {}, "n0")
        match todo:
            case Remove(member, _):
                assert member.name in leaving and member.name != "n0"
                seen = [m for m in seen if m.id != member.id]
            case Promote(member):
                assert member.is_learner and member.name not in leaving
                # etcd itself does this only for one that has caught up, which answers
                seen = [replace(m, is_learner=False, answers=True) if m.id == member.id else m for m in seen]
            case None if data.draw(st.booleans()) and not refuse_addition(seen):
                seen.append(Seen(100 + number, f"n{100 + number}", True, True))
        voters = [m for m in seen if not m.is_learner]
        assert abs(len(voters) - before) <= 1
        if todo is not None:
            assert was_well, "nothing is changed without a majority"
        if was_well:
            assert voters and sum(m.answers for m in voters) >= quorum(len(voters))


@given(st.integers(1, 99))
def test_two_majorities_meet(voters: int) -> None:
    assert 2 * quorum(voters) > voters
    assert quorum(voters) <= voters
