"""`python -m tests.simulation.faults.unseen [NAME…]`: a planted fault counts only when the unit tests do not see it.

All unit tests run once, to learn which of them call what a fault would replace; then those of each fault with the fault
planted. A test that calls nothing of it cannot see it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.simulation.faults.planted import chosen, load
from tests.simulation.faults.plugin import ANY

ROOT = Path(__file__).parents[3]
UNIT = "tests/unit"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "tests.simulation.faults.plugin", "-p", "no:cacheprovider"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.faults.unseen", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups, or parts of names; all when none is given")
    arguments = parser.parse_args()
    faults = load()
    names = chosen(arguments.names)
    with tempfile.TemporaryDirectory() as folder:
        callers = _callers(Path(folder))
    seen = 0
    for name in names:
        tests = sorted(callers[name] - {ANY})
        failed = _failed(name, [UNIT] if ANY in callers[name] else tests)
        seen += bool(failed)
        verdict = f"SEEN by {failed}" if failed else f"not seen by {len(tests) or 'all'} tests that could"
        print(f"{faults[name].group:9} {name}: {verdict}", flush=True)
    print(f"{len(names) - seen} of {len(names)} planted faults leave the unit tests green")
    return 1 if seen else 0


def _callers(folder: Path) -> defaultdict[str, set[str]]:
    """Fault → tests that call what it would replace."""
    done = _run([UNIT, "-n", "auto"], FAULT_CALLS=str(folder))
    if done.returncode != 0:  # of a machine that is busy it says nothing
        done = _run(_culprits(done) or [UNIT])
    assert done.returncode == 0, f"the unit tests fail without any fault:\n{done.stdout}{done.stderr}"
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in folder.iterdir():
        for fault, tests in json.loads(path.read_text()).items():
            found[fault].update(tests)
    return found


def _failed(name: str, tests: list[str]) -> str:
    """The first test that fails, and fails again when it runs alone; "" when none does."""
    if not tests:
        return ""
    excused: list[str] = []
    while True:
        done = _run(["-x", *(["-n", "auto"] if tests == [UNIT] else []), *excused, *tests], FAULT=name)
        if done.returncode == 0:
            return ""
        culprits = _culprits(done)
        if not culprits:
            return f"pytest itself, which ends with {done.returncode}"
        if _run(culprits[:1], FAULT=name).returncode:
            return culprits[0]
        excused += ["--deselect", culprits[0]]


def _culprits(done: subprocess.CompletedProcess[str]) -> list[str]:
    summary = done.stdout.rpartition("short test summary info")[2]
    lines = [line for line in summary.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return [line.partition(" ")[2].partition(" - ")[0] for line in lines]


def _run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PYTEST, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
