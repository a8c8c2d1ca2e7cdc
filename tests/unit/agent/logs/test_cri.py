from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_agent.logs import cri


def test_a_line_has_time_stream_and_text() -> None:
    piece = cri.parse(b"2026-11-24T14:11:22.631523957+00:00 stdout F hi  there")
    assert piece is not None
    assert piece.text == b"hi  there" and piece.is_last and not piece.is_stderr
    assert abs(piece.at - 1795529482.631523957) < 1e-6


def test_times_in_other_zones_and_without_fraction() -> None:
    assert cri.parse_time("2026-11-24T14:11:22Z") == 1795529482.0
    assert cri.parse_time("2026-11-24T16:11:22.5+02:00") == 1795529482.5
    assert cri.parse_time("yesterday") is None


def test_an_empty_line_is_a_line() -> None:
    piece = cri.parse(b"2026-11-24T14:11:22Z stderr F ")
    assert piece is not None and piece.text == b"" and piece.is_stderr


def test_what_is_no_line_is_left_out() -> None:
    assert cri.parse(b"24T14:11:22Z stdout F cut short by a full disk") is None
    assert cri.parse(b"") is None
    assert cri.parse(b"\x00\xff\xfe stdout F x") is None


def test_pieces_of_both_streams_are_joined_apart() -> None:
    joiner = cri.Joiner()
    assert joiner.add(cri.Piece(1.0, False, b"out ", False)) is None
    assert joiner.add(cri.Piece(2.0, True, b"err ", False)) is None
    assert joiner.add(cri.Piece(3.0, False, b"put", True)) == cri.Line(1.0, False, b"out put")
    assert list(joiner.rest()) == [cri.Line(2.0, True, b"err ")]
    assert list(joiner.rest()) == []


def test_a_line_without_end_is_cut_and_does_not_fill_the_memory() -> None:
    joiner = cri.Joiner()
    lines = [joiner.add(cri.Piece(1.0, False, b"x" * 8192, False)) for _ in range(300)]
    cut = [line for line in lines if line is not None]
    assert len(cut) == 2 and all(len(line.text) == cri.LONGEST for line in cut)


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=8))
def test_joining_gives_back_what_was_split(pieces: list[bytes]) -> None:
    joiner = cri.Joiner()
    for each in pieces[:-1]:
        assert joiner.add(cri.Piece(0.0, False, each, False)) is None
    line = joiner.add(cri.Piece(0.0, False, pieces[-1], True))
    assert line is not None and line.text == b"".join(pieces)
