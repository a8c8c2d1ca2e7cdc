"""When a probe's results make a task healthy or unhealthy, and when the next one is due. Pure.

Until a task is healthy for the first time it is looked at often, so that a deploy need not wait for a long interval;
but its failures are counted as if it were looked at once an interval, so that a slow starter has the time that its
probe's settings mean: `start_period` and then `retries` intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

INTERVAL = TIMEOUT = 30.0  # seconds, where the spec says nothing; as in Docker
RETRIES = 3
FIRST_PAUSE, GROWTH, LAST_PAUSE = 0.05, 2.0, 1.0  # between the probes of a task that was never healthy


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds."""

    interval: float = INTERVAL
    timeout: float = TIMEOUT
    retries: int = RETRIES
    start_period: float = 0.0

    @staticmethod
    def of(probe: spec.Probe) -> Terms:
        return Terms(probe.interval or INTERVAL, probe.timeout or TIMEOUT, probe.retries or RETRIES, probe.start_period)


@dataclass(frozen=True, slots=True)
class Threshold:
    terms: Terms
    started_at: float  # of the task; unix seconds
    health: pb.Health.ValueType = pb.HEALTH_STARTING
    failures: int = 0  # in a row
    pause: float = FIRST_PAUSE

    @property
    def give_up_at(self) -> float:
        """A task that is not healthy for the first time until then will not be."""
        return self.started_at + self.terms.start_period + self.terms.retries * self.terms.interval

    def after(self, passed: bool, now: float) -> tuple[Threshold, float]:
        """What a probe that ended `now` makes of it, and the seconds until the next one."""
        if passed:
            return replace(self, health=pb.HEALTH_HEALTHY, failures=0), self.terms.interval
        if self.health == pb.HEALTH_STARTING:
            return self._still_starting(now)
        failures = self.failures + 1
        health = pb.HEALTH_UNHEALTHY if failures >= self.terms.retries else self.health
        return replace(self, health=health, failures=failures), self.terms.interval

    def _still_starting(self, now: float) -> tuple[Threshold, float]:
        if now >= self.give_up_at:
            return replace(self, health=pb.HEALTH_UNHEALTHY, failures=self.failures + 1), self.terms.interval
        pause = min(self.pause, self.terms.interval)
        grown = min(self.pause * GROWTH, LAST_PAUSE)
        return replace(self, failures=self.failures + 1, pause=grown), min(pause, max(0.0, self.give_up_at - now))
