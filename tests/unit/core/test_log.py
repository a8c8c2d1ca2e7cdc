from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pyswarm_core import log


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, ours = list(root.handlers), root.level, logging.getLogger(log.ROOT).level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(log.ROOT).setLevel(ours)


def line(stream: io.StringIO) -> str:
    text = stream.getvalue()
    assert text.count("\n") == 1
    return text


def test_logfmt_quotes_only_what_needs_it() -> None:
    stream = io.StringIO()
    log.configure("info", stream=stream)
    log.get_logger("a.b").info("it began", node="n1", text='say "x"', empty="", ok=True, seconds=0.25, of=[1, 2])
    text = line(stream)
    assert text.startswith("ts=")
    assert text.endswith(
        'level=info logger=a.b event="it began" node=n1 text="say \\"x\\"" empty="" ok=true seconds=0.25 of=1,2\n'
    )


def test_json_lines_with_exception_stay_one_line() -> None:
    stream = io.StringIO()
    log.configure("info", json=True, stream=stream)
    try:
        raise RuntimeError("torn\nin two")
    except RuntimeError:
        log.get_logger("a").bind(node="n1").exception("failed", event="kept", count=3)
    fields = json.loads(line(stream))
    assert fields["event"] == "failed" and fields["event_"] == "kept"
    assert (fields["node"], fields["count"], fields["level"]) == ("n1", 3, "error")
    assert fields["error"] == "RuntimeError: torn\nin two"
    assert "Traceback" in fields["traceback"]


def test_level_changes_at_run_time_for_existing_loggers() -> None:
    stream = io.StringIO()
    log.configure("warning", stream=stream)
    logger = log.get_logger("a")
    logger.info("hidden")
    assert not stream.getvalue()
    log.set_level("debug")
    assert logger.is_enabled("debug")
    logger.debug("shown")
    assert "event=shown" in line(stream)


def test_a_disabled_line_does_not_touch_its_values() -> None:
    class Loud:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    log.configure("info", stream=io.StringIO())
    log.get_logger("a").debug("quiet", value=Loud())


def test_a_value_that_cannot_be_printed_is_named() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    stream = io.StringIO()
    log.configure("info", stream=stream)
    log.get_logger("a").info("odd", value=Broken())
    assert "value=<Broken>" in line(stream)


def test_configuring_twice_prints_once_and_others_lines_come_in_the_same_format() -> None:
    log.configure("info", stream=io.StringIO())
    stream = io.StringIO()
    log.configure("info", stream=stream)
    logging.getLogger("foreign").warning("100%% of %s", "it")
    assert 'level=warning logger=foreign event="100% of it"' in line(stream)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown log level 'loud'"):
        log.configure("loud")
