"""Variables in Compose files, and the lines of env files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.compose.envfile import parse as parse_env
from pyswarm_cli.compose.interpolate import interpolate
from pyswarm_cli.compose.loader import ComposeError
from pyswarm_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A=1", {"A": "1"}), ("A = 1 ", {"A": "1"}), ("export A=1", {"A": "1"}), ("A=", {"A": ""}), ("A", {"A": None}),
        ("# c\n\nA=1 # c", {"A": "1"}), ("A=a#b", {"A": "a#b"}), ("A='x $Y # z'", {"A": "x $Y # z"}),
        ('A="x\\ny" # c', {"A": "x\ny"}), ('A="q\\"q"', {"A": 'q"q'}), ('A="two\nlines"', {"A": "two\nlines"}),
        ("A=$V/x", {"A": "v/x"}), ("A=1\nB=${A}2", {"A": "1", "B": "12"}), ("A=${N:-d}", {"A": "d"}),
        ('A="\\$V"', {"A": "$V"}), ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}), ("A=#x", {"A": ""}),
    ],
)  # fmt: skip
def test_env_file_lines(text: str, wanted: dict[str, str | None]) -> None:
    assert parse_env(text, "f", {"V": "v"}) == wanted


@pytest.mark.parametrize("text", ["=1", "A B=1", "1A=1", 'A="open', "A='x' y", "A=${", "A=$("])
def test_env_file_lines_refused(text: str) -> None:
    with pytest.raises(ComposeError, match="f:1: "):
        parse_env(text, "f", {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("${A}", "a"), ("$A-x", "a-x"), ("$$A", "$A"), ("${N:-d}", "d"), ("${E:-d}", "d"), ("${E-d}", ""),
        ("${N-d}", "d"), ("${N:-${A}}", "a"), ("${N:-${M:-deep}}", "deep"), ("${A:+x}", "x"), ("${N:+x}", ""),
        ("${E:+x}", ""), ("${E+x}", "x"), ("${N}", ""), ("a$$b", "a$b"), ("${A:?no}", "a"), ("${N:-a b:c}", "a b:c"),
        ("${N:-}", ""), ("plain", "plain"), ("${N:-{}}", "{}"),  # the first closing brace ends it, as in Compose
    ],
)  # fmt: skip
def test_interpolation(text: str, wanted: str) -> None:
    assert interpolate(text, {"A": "a", "E": ""}, lambda _: None) == wanted


@pytest.mark.parametrize("text", ["$", "${", "${}", "${A", "$(x)", "${1}", "${A:x}", "${N:?}", "${N?gone}", "a$ b"])
def test_interpolation_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        interpolate(text, {"A": "a"}, lambda _: None)


@given(st.text(max_size=60))
def test_any_text_interpolates_or_is_refused(text: str) -> None:
    try:
        interpolate(text, {"A": "a"}, lambda _: None)
    except InvalidInput as error:
        assert str(error)


@given(st.text(max_size=60))
def test_text_without_dollar_is_left_alone(text: str) -> None:
    doubled = text.replace("$", "$$")
    assert interpolate(doubled, {}, lambda _: None) == text
