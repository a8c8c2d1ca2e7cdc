"""A bounded set of seeds, and the promise that a seed is enough to see the same again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.record import read


def simulation(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_the_same_seed_gives_the_same_trace() -> None:
    one = simulation("--seed", "11", "--seeds", "2", "--hours", "0.1", "--jobs", "1")
    other = simulation("--seed", "11", "--seeds", "2", "--hours", "0.1", "--jobs", "2")
    assert one.splitlines()[-1] == other.splitlines()[-1]
    assert one.splitlines()[-1] != simulation("--seed", "12", "--seeds", "2", "--hours", "0.1").splitlines()[-1]


@pytest.mark.timeout(900)
def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    log = tmp_path / "seeds.jsonl"
    arguments = ("--seed", "11", "--hours", "0.1", "--log", str(log))
    simulation(*arguments, "--seeds", "2")
    first, second = log.read_text().splitlines()
    log.write_text(first + "\n" + second[:20])  # killed while it wrote
    report = simulation(*arguments, "--seeds", "2")
    assert "2 seeds" in report and log.read_text().splitlines()[0] == first
    assert set(read(log)) == {11, 12}


@pytest.mark.timeout(900)
def test_planted_faults_are_found_and_told_of() -> None:
    """One of each group, that shows soon; `python -m tests.simulation.faults` plants all."""
    names = [
        "tasks are placed on drained nodes",
        "versions are not compared",
        "whoever campaigns takes the key",
        "the fastest node is enough",
        "an increment is taken for all there is",
    ]
    command = [sys.executable, "-m", "tests.simulation.faults", "--seeds", "8", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "found 5 of 5" in done.stdout, done.stdout + done.stderr
