"""`python -m tests.simulation [--seed S] [--seeds N] [--hours H]`: runs scenarios, and tells what broke.

The same seed gives the same trace, on every machine: the last line is a hash of all that happened."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

EACH = 0.5  # simulated hours of one seed
SHRINK_FOR = 90.0  # seconds of real time


def main() -> int:
    arguments = _arguments()
    again = {"PYTHONHASHSEED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    if any(os.environ.get(name) != value for name, value in again.items()):
        # The order of sets of strings depends on it, and so does all that follows from that order.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, **again})
    seeds, hours = _plan(arguments)
    return Report(hours, shrink=not arguments.no_shrink).run(seeds, arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds")
    parser.add_argument("--hours", type=float, default=0.0, help="simulated hours, all seeds together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for a smaller scenario that fails")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> tuple[range, float]:
    """The seeds, and the hours of each."""
    count = arguments.seeds or max(1, round(arguments.hours / EACH))
    hours = arguments.hours / count if arguments.hours and arguments.seeds else EACH
    return range(arguments.seed, arguments.seed + count), hours


class Report:
    def __init__(self, hours: float, *, shrink: bool) -> None:
        self._hours = hours
        self._shrink = shrink
        self._lines: dict[int, str] = {}
        self._failed: list[int] = []
        self._counts: Counter[str] = Counter()
        self._simulated = 0.0

    def run(self, seeds: range, jobs: int) -> int:
        from tests.simulation.run import Outcome, simulate

        began = time.monotonic()

        def take(outcome: Outcome) -> None:
            self._lines[outcome.seed] = f"{outcome.seed} {outcome.trace}"
            self._simulated += outcome.hours
            self._counts.update(outcome.counts, faults=outcome.faults, actions=outcome.actions)
            if outcome.finding is not None:
                self._failed.append(outcome.seed)
                print(f"seed {outcome.seed}: {outcome.finding.invariant}: {outcome.finding.text}", flush=True)
            elif len(seeds) == 1:
                print(f"seed {outcome.seed}: all is well; settled {outcome.settled_after:.0f} s after the last fault")

        if len(seeds) == 1 or jobs == 1:
            for seed in seeds:
                take(simulate(seed, self._hours))
        else:
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=20) as pool:
                for done in as_completed([pool.submit(simulate, seed, self._hours) for seed in seeds]):
                    take(done.result())
        self._summary(len(seeds), time.monotonic() - began)
        if self._failed:
            self._tell(min(self._failed))
        digest = hashlib.blake2b("\n".join(self._lines[seed] for seed in seeds).encode(), digest_size=16)
        print(f"trace {digest.hexdigest()}")
        return 1 if self._failed else 0

    def _summary(self, seeds: int, seconds: float) -> None:
        counts, minutes = self._counts, seconds / 60
        print(
            f"{seeds} seeds, {self._simulated:.1f} simulated hours, {counts['faults']} faults, "
            f"{counts['actions']} actions of the user, {counts['revisions']} revisions, {counts['events']} events, "
            f"{len(self._failed)} violations"
        )
        connections = {name: count for name, count in sorted(counts.items()) if name.startswith("connection ")}
        print(", ".join(f"{count} {name.removeprefix('connection ')}" for name, count in connections.items()))
        print(f"{minutes:.1f} minutes: {self._simulated / minutes:.2f} simulated hours a real minute")

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
