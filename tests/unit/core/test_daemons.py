"""Daemons that no systemd started are found by their command line."""

from __future__ import annotations

import pytest

from pyswarm_core.membership.daemons import is_one


@pytest.mark.parametrize(
    ("line", "daemon", "found"),
    [
        ("/opt/venv/bin/python /opt/venv/bin/pyswarm agent run", "agent", True),
        ("/usr/bin/python3 -m pyswarm_cli manager run --id m1", "manager", True),
        ("/usr/bin/python3 -m pyswarm_cli manager run", "agent", False),
        ("etcd", "etcd", True),
        ("/usr/bin/python3 /usr/bin/pyswarm etcd run", "etcd", True),
        ("vi agent run", "agent", False),
        ("agent run pyswarm", "agent", False),
        ("", "agent", False),
    ],
)
def test_daemons_by_their_command_line(line: str, daemon: str, found: bool) -> None:
    assert is_one([*line.split(), ""], daemon) is found


def test_a_process_that_has_just_ended_has_no_command_line() -> None:
    assert not is_one([], "etcd") and not is_one([], "agent")
