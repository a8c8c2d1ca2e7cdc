"""The messages are what crun 1.8, runc 1.1 and conmon 2.1 said."""

from __future__ import annotations

import pytest

from pyswarm_agent.runtime.failures import plain, translate

RUNC = (
    'time="2026-11-24T14:11:22Z" level=error msg="runc create failed: unable to start container process: '
    'exec: \\"nosuch\\": executable file not found in $PATH"\n'
)


@pytest.mark.parametrize(
    ("message", "sentence", "final"),
    [
        (
            "executable file `nosuch` not found in $PATH: No such file or directory\n",
            "the command 'nosuch' is not in the image's PATH",
            True,
        ),
        (RUNC, "the command 'nosuch' is not in the image's PATH", True),
        ("open executable: No such file or directory", "could not be created", False),
        ("write to /sys/fs/cgroup/x: No space left on device", "disk is full", False),
        ("fork: Resource temporarily unavailable", "no processes left", False),
        ("exec: Exec format error", "another architecture", True),
        ("", "gave no reason", False),
        ("something new\nover two lines", "something new; over two lines", False),
    ],
)
def test_sentences(message: str, sentence: str, final: bool) -> None:
    failure = translate(message, "created")
    assert sentence in str(failure)
    assert failure.final is final
    assert "\n" not in str(failure)


def test_log_prefixes_are_taken_off() -> None:
    assert plain("2026-11-24T14:11:22.624349Z: error opening file") == "error opening file"
    assert plain("[conmon:e]: Failed to create container: exit status 1") == "Failed to create container: exit status 1"
