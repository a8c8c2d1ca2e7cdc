"""Ranges that numbers of a spec must be in."""

from __future__ import annotations

import math

from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

LONGEST = 366 * 86_400.0  # seconds: longer than anybody waits, and far from overflowing anything
LEAST_MEMORY = 6 << 20  # Docker's: below it a runtime cannot start a process
LEAST_NANO_CPUS = 1_000_000_000 // 100  # cgroups take a hundredth of a CPU at least (1 ms in each 100)


def check_duration(what: str, seconds: float) -> None:
    """`what` begins the sentence: "The drain timeout"."""
    if not math.isfinite(seconds) or seconds < 0:
        raise InvalidInput(f"{what} must be 0 or more, not {seconds:g} seconds.")
    if seconds > LONGEST:
        raise InvalidInput(f"{what} must be at most a year, not {seconds:g} seconds.")


def check_resources(resources: spec.Resources) -> None:
    for what, value in (
        ("CPU reservation", resources.reserve_nano_cpus),
        ("CPU limit", resources.limit_nano_cpus),
        ("memory reservation", resources.reserve_memory),
        ("memory limit", resources.limit_memory),
        ("limit of processes", resources.limit_pids),
    ):
        if value < 0:
            raise InvalidInput(f"The {what} must be 0 or more.")
    if 0 < resources.limit_memory < LEAST_MEMORY:
        raise InvalidInput(f"The memory limit must be at least 6 MiB, not {resources.limit_memory} bytes.")
    if 0 < resources.limit_nano_cpus < LEAST_NANO_CPUS:
        raise InvalidInput("The CPU limit must be at least 0.01.")
    if 0 < resources.limit_memory < resources.reserve_memory:
        raise InvalidInput(
            f"The memory limit ({resources.limit_memory} bytes) is below the reservation "
            f"({resources.reserve_memory} bytes)."
        )
    if 0 < resources.limit_nano_cpus < resources.reserve_nano_cpus:
        raise InvalidInput(
            f"The CPU limit ({resources.limit_nano_cpus / 1e9:g}) is below the reservation "
            f"({resources.reserve_nano_cpus / 1e9:g})."
        )


def check_policy(which: str, policy: spec.UpdatePolicy) -> None:
    """`which`: update or rollback."""
    if policy.order not in spec.UpdateOrder.values():
        raise InvalidInput(f"The {which} order must be start-first or stop-first.")
    if policy.failure_action not in spec.FailureAction.values():
        raise InvalidInput(f"The {which} failure action must be pause, continue or rollback.")
    if policy.parallelism > 10_000:
        raise InvalidInput(f"The {which} parallelism must be at most 10000, not {policy.parallelism}.")
    check_duration(f"The {which} delay", policy.delay)
    check_duration(f"The {which} monitor time", policy.monitor)
    check_duration(f"The {which} deadline", policy.deadline)
    if not 0 <= policy.max_failure_ratio <= 1:
        raise InvalidInput(f"The {which} max failure ratio must be between 0 and 1, not {policy.max_failure_ratio:g}.")


def check_restart(policy: spec.RestartPolicy) -> None:
    if policy.condition not in spec.RestartCondition.values():
        raise InvalidInput("The restart condition must be any, on-failure or none.")
    check_duration("The restart delay", policy.delay)
    check_duration("The restart window", policy.window)
