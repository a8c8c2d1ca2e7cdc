"""`python -m tests.simulation [--seed S] [--seeds N] [--hours H]`: runs scenarios, and tells what broke.

The same seed gives the same trace, on every machine: the last line is a hash of all that happened."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.run import Outcome

EACH = 0.5  # simulated hours of one seed
SHRINK_FOR = 90.0  # seconds of real time


def main() -> int:
    arguments = _arguments()
    again = {"PYTHONHASHSEED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    if any(os.environ.get(name) != value for name, value in again.items()):
        # The order of sets of strings depends on it, and so does all that follows from that order.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, **again})
    seeds, hours = _plan(arguments)
    return Report(hours, arguments.log, shrink=not arguments.no_shrink).run(seeds, arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds")
    parser.add_argument("--hours", type=float, default=0.0, help="simulated hours, all seeds together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--log", type=Path, help="a file with one line for each seed; those in it are not run again")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a smaller scenario that fails")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> tuple[range, float]:
    """The seeds, and the hours of each."""
    count = arguments.seeds or max(1, round(arguments.hours / EACH))
    hours = arguments.hours / count if arguments.hours and arguments.seeds else EACH
    return range(arguments.seed, arguments.seed + count), hours


class Report:
    """`log` None: nothing is kept."""

    def __init__(self, hours: float, log: Path | None, *, shrink: bool) -> None:
        from tests.simulation import record

        self._hours = hours
        self._log = log
        self._shrink = shrink
        self._commit = record.commit()
        self._done = record.read(log) if log is not None else {}
        self._counts: Counter[str] = Counter()

    def run(self, seeds: range, jobs: int) -> int:
        began = time.monotonic()
        before = sum(record.hours for record in self._done.values())
        for outcome in self._outcomes([seed for seed in seeds if seed not in self._done], jobs):
            self._take(outcome, only=len(seeds) == 1)
        hours = sum(record.hours for record in self._done.values())
        self._summary((hours - before) / max(1e-9, (time.monotonic() - began) / 60))
        failed = [seed for seed in seeds if self._done[seed].finding]
        if failed:
            self._tell(failed[0])
        traces = "\n".join(f"{seed} {self._done[seed].trace}" for seed in seeds)
        print(f"trace {hashlib.blake2b(traces.encode(), digest_size=16).hexdigest()}")
        return 1 if failed or any(self._done[seed].lacks() for seed in seeds) else 0

    def _outcomes(self, seeds: list[int], jobs: int) -> Iterator[Outcome]:
        from tests.simulation import workers
        from tests.simulation.run import simulate

        if len(seeds) <= 1 or jobs == 1:
            for seed in seeds:
                yield simulate(seed, self._hours)
            return
        with ProcessPoolExecutor(jobs, get_context("spawn"), workers.begin) as pool:
            for done in as_completed([pool.submit(simulate, seed, self._hours) for seed in seeds]):
                yield done.result()

    def _take(self, outcome: Outcome, *, only: bool) -> None:
        from tests.simulation import record

        one = self._done[outcome.seed] = record.Record.of(outcome, self._commit)
        if self._log is not None:
            record.append(self._log, one)
        self._counts.update(outcome.counts)
        if one.finding:
            print(f"seed {one.seed}: {one.finding}", flush=True)
        elif lacks := one.lacks():
            print(f"seed {one.seed} has too little to count: {lacks}", flush=True)
        elif only:
            print(f"seed {one.seed}: all is well; settled {one.settled_after:.0f} s after the last fault")

    def _summary(self, rate: float) -> None:
        """`rate`: simulated hours a real minute."""
        records = list(self._done.values())
        failed, calm = sum(bool(one.finding) for one in records), sum(bool(one.lacks()) for one in records)
        print(
            f"{len(records)} seeds, {sum(one.hours for one in records):.1f} simulated hours, "
            f"{sum(one.faults for one in records)} faults, {sum(one.actions for one in records)} actions of the user, "
            f"{failed} violations, {calm} with too little to count"
        )
        whole = [one for one in records if not one.finding]
        if whole:
            print(
                f"in each at least {min(one.nodes for one in whole)} nodes, "
                f"{min(one.services for one in whole)} services, "
                f"{min(one.faults / one.hours for one in whole):.0f} faults and "
                f"{min(one.actions / one.hours for one in whole):.0f} actions an hour"
            )
        counts = {name: count for name, count in sorted(self._counts.items()) if not name.startswith("fault ")}
        print(", ".join(f"{count} {name}" for name, count in counts.items()))
        faults = {name: count for name, count in sorted(self._counts.items()) if name.startswith("fault ")}
        print("faults: " + ", ".join(f"{count} {name.removeprefix('fault ')}" for name, count in faults.items()))
        seconds = sum(one.seconds for one in records)
        hours = sum(one.hours for one in records)
        print(
            f"{rate:.2f} simulated hours a real minute, {60 * hours / max(1e-9, seconds):.2f} a minute of a processor"
        )

    def _tell(self, seed: int) -> None:
        """The story of one failure, and the smallest scenario found that fails in the same way."""
        from tests.simulation import scenario
        from tests.simulation.run import simulate
        from tests.simulation.shrink import shrink

        finding = simulate(seed, self._hours).finding
        assert finding is not None, f"seed {seed} fails in one process and not in another"
        steps: list[scenario.Step] = list(scenario.make(seed, self._hours))
        if self._shrink:
            steps, finding = shrink(
                steps, finding, lambda fewer: simulate(seed, self._hours, fewer).finding, seconds=SHRINK_FOR
            )
        print(f"\nseed {seed}, `make sim SEED={seed}`: {finding.invariant}")
        print(f"at {finding.at:.3f} s: {finding.text}")
        print("the story of the objects concerned:")
        print("\n".join(finding.story))
        print(f"the scenario, {len(steps)} steps{' after shrinking' if self._shrink else ''}:")
        for step in steps:
            print(f"{step.at:12.3f}  {step.what}  {step.number}")


if __name__ == "__main__":
    sys.exit(main())
