"""Looks for one planted fault, or for all of them side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from tests.simulation import workers

HOURS = 0.25  # of one seed
SEEDS = 24  # at most, for one fault


@dataclass(frozen=True, slots=True)
class Found:
    """`invariant` "": not within the bound."""

    name: str
    invariant: str
    seed: int
    hours: float
    seconds: float
    why: str = "not found"


def hunt(name: str, first: int, seeds: int) -> Found:
    """In a process of its own."""
    from tests.simulation.faults.planted import load
    from tests.simulation.run import simulate

    began, hours = time.monotonic(), 0.0
    try:
        load()[name].plant()
    except (AttributeError, KeyError, TypeError) as error:
        return Found(name, "", 0, 0.0, 0.0, f"cannot be planted any more: {error!r}")
    for seed in range(first, first + seeds):
        outcome = simulate(seed, HOURS)
        hours += outcome.hours
        if outcome.finding is not None:
            return Found(name, outcome.finding.invariant, seed, hours, time.monotonic() - began)
    return Found(name, "", 0, hours, time.monotonic() - began)


def breaks_by_itself(seed: int) -> bool:
    """Without any fault planted: what a hunt found there says nothing."""
    from tests.simulation.run import simulate

    return simulate(seed, HOURS).finding is not None


def hunt_all(names: list[str], first: int, seeds: int, jobs: int) -> Iterator[Found]:
    with ThreadPoolExecutor(jobs) as threads:
        for done in as_completed([threads.submit(_alone, name, first, seeds) for name in names]):
            yield done.result()


def _alone(name: str, first: int, seeds: int) -> Found:
    # One pool for all, told to use each process once, waits for ever now and then in Python 3.11.2 (Debian 12).
    with ProcessPoolExecutor(1, get_context("spawn"), workers.begin) as pool:
        return pool.submit(hunt, name, first, seeds).result()


def broken(seeds: set[int], jobs: int) -> set[int]:
    """Those of the seeds that fail by themselves."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), workers.begin) as pool:
        return {
            seed
            for seed, is_broken in zip(sorted(seeds), pool.map(breaks_by_itself, sorted(seeds)), strict=True)
            if is_broken
        }
