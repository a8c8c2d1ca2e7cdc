"""A bounded set of seeds, and the promise that a seed is enough to see the same again."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEDS = "8"


def simulation(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_random_histories_break_nothing() -> None:
    report = simulation("--seed", "100", "--seeds", SEEDS, "--hours", "1.2", "--no-shrink")
    assert f"{SEEDS} seeds" in report and "0 violations" in report
    assert report.splitlines()[-1].startswith("trace ")


@pytest.mark.timeout(600)
def test_the_same_seed_gives_the_same_trace() -> None:
    one = simulation("--seed", "11", "--seeds", "2", "--hours", "0.2", "--jobs", "1")
    other = simulation("--seed", "11", "--seeds", "2", "--hours", "0.2", "--jobs", "2")
    assert one.splitlines()[-1] == other.splitlines()[-1]
    assert one.splitlines()[-1] != simulation("--seed", "12", "--seeds", "2", "--hours", "0.2").splitlines()[-1]


@pytest.mark.timeout(600)
def test_planted_faults_are_found_and_told_of() -> None:
    """One of each group, that shows soon; `python -m tests.simulation.faults` plants all."""
    names = [
        "the old task goes before the new one serves",
        "versions are not compared",
        "whoever campaigns takes the key",
        "the fastest node is enough",
        "an increment is taken for all there is",
    ]
    command = [sys.executable, "-m", "tests.simulation.faults", "--seeds", "8", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "found 5 of 5" in done.stdout, done.stdout + done.stderr
