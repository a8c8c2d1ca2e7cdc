"""From a scenario that fails to a small one that fails in the same way: what can be left out is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.simulation.findings import Finding
from tests.simulation.scenario import Step

Try = Callable[[Sequence[Step]], Finding | None]


def shrink(steps: Sequence[Step], finding: Finding, attempt: Try, *, seconds: float) -> tuple[list[Step], Finding]:
    """For at most `seconds` of real time. `attempt` runs a scenario. The result fails by the same invariant."""
    end = time.monotonic() + seconds
    left = [step for step in steps if step.at <= finding.at]
    found = finding
    size = max(1, len(left) // 2)
    while size and time.monotonic() < end:
        start, progress = 0, False
        while start < len(left) and time.monotonic() < end:
            fewer = left[:start] + left[start + size :]
            now = attempt(fewer)
            if now is not None and now.invariant == finding.invariant:
                left, found, progress = [step for step in fewer if step.at <= now.at], now, True
            else:
                start += size
        if not progress or size > 1:
            size //= 2
    return left, found
