"""A daemon's log level, changed while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_core import reload
from pyswarm_core.log import ROOT, set_level


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = logging.getLogger(ROOT).level, logging.getLogger().level
    set_level("info")
    yield
    logging.getLogger(ROOT).setLevel(before[0])
    logging.getLogger().setLevel(before[1])


def _level() -> int:
    return logging.getLogger(ROOT).level


async def test_a_hangup_takes_the_level_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.env"
    file.write_text('# settings\nOTHER="x"\nPYSWARM_AGENT_LOG_LEVEL="debug"\n')
    monkeypatch.setenv(reload.ENV_FILE, str(file))
    reload.on_hangup("PYSWARM_AGENT_LOG_LEVEL")
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            while _level() != logging.DEBUG:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


@pytest.mark.parametrize("content", ['PYSWARM_AGENT_LOG_LEVEL="loud"\n', 'PYSWARM_AGENT_LOG_LEVEL="debug\n', None])
def test_what_makes_no_sense_changes_nothing(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "agent.env"
    if content is not None:
        file.write_text(content)
    reload.reload_level(str(file), "PYSWARM_AGENT_LOG_LEVEL")
    reload.reload_level("", "PYSWARM_AGENT_LOG_LEVEL")
    assert _level() == logging.INFO


@pytest.mark.parametrize(
    ("text", "value"), [("A=b", "b"), ('A="b"\nA="c"\n', "c"), ("AA=b\n#A=c\n", ""), ("", ""), ("A='x' ", "x")]
)
def test_values(text: str, value: str) -> None:
    assert reload.value_of(text, "A") == value
