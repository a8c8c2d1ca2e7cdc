"""How long exclusive tasks may run without a word from a leader. Pure; docs/adr/0014 has the argument.

All times are seconds since boot (CLOCK_BOOTTIME), which nobody sets and which goes on while the machine sleeps. A
permit counts from the moment at which the heartbeat was *sent* that the leader answered: whatever delays the answer
cannot lengthen it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

# A leader's death is over before that: its lease of 5 s, and the way to the next one.
STOP_AFTER = 15.0  # its tasks get their stop signal
KILL_AFTER = 25.0  # their fuses burn. The leader replaces them after 30 s of silence (manager: dispatcher.nodes)
PERIOD = 2.0  # between two heartbeats while there are such tasks


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Permit:
    sent_at: float | None = None  # of the last heartbeat that was answered with a permit

    def renewed(self, sent_at: float) -> Permit:
        """Answers may come out of order: an older one changes nothing."""
        return self if self.sent_at is not None and sent_at <= self.sent_at else Permit(sent_at)

    def is_valid(self, now: float) -> bool:
        return self.sent_at is not None and self.sent_at <= now < self.sent_at + STOP_AFTER

    @property
    def burns_at(self) -> float:
        return 0.0 if self.sent_at is None else self.sent_at + KILL_AFTER
