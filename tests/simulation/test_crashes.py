"""A crash at every so many write points of the main scenarios; SOAK=1 takes all of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.simulation.crashes import SCENARIOS

EVERY = "1" if os.environ.get("SOAK") else "29"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_a_write_changes_nothing_in_the_end(scenario: str) -> None:
    command = [sys.executable, "-m", "tests.simulation.crashes", scenario, "--jobs", "1", "--every", EVERY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    crashes = next(line for line in done.stdout.splitlines() if line.startswith(scenario))
    assert " 0 crashes" not in crashes
