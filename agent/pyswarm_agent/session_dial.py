"""Which manager to dial next, and when. Pure.

Fast at first, so that a manager's restart is short; slower later, so that a host without managers stays idle. While
some manager answers that it does not lead, an election is going on: its end must not be slept through."""

from __future__ import annotations

import random
from collections.abc import Sequence

FAST_DELAY = 0.05  # seconds; grows to FAST_MAX within the first FAST_TRIES attempts, then to SLOW_MAX
FAST_MAX = 0.2
FAST_TRIES = 30
ANSWERED_MAX = 0.5  # afterwards, as long as one of the managers answers
SLOW_MAX = 2.0
GROWTH = 1.4


class Dialer:
    def __init__(self, managers: Sequence[str], rng: random.Random) -> None:
        """`managers`: HOST:PORT, at least one. They are tried for ever, after those that are learnt."""
        self._first = tuple(dict.fromkeys(managers))
        self._managers = list(self._first)
        self._rng = rng
        self._next = 0
        self._hint = ""
        self._is_hinted = False  # the address that was last given out
        self._failures = 0
        self._unanswered = 0  # dials since a manager has answered

    @property
    def managers(self) -> tuple[str, ...]:
        """HOST:PORT of all that are known, the likeliest first."""
        at = self._next % len(self._managers)
        return (*self._managers[at:], *self._managers[:at])

    def learn(self, managers: Sequence[str]) -> None:
        """Who manages the cluster by a manager's own word."""
        current = self._managers[self._next % len(self._managers)]
        self._managers = list(dict.fromkeys((*managers, *self._first)))
        self._next = self._managers.index(current) if current in self._managers else 0

    def next(self) -> tuple[str, float]:
        """(address, seconds to wait before dialling it)."""
        address, self._hint = self._hint, ""
        self._is_hinted = bool(address)
        if not address:
            address = self._managers[self._next % len(self._managers)]
        return address, self._delay()

    def _delay(self) -> float:
        # The first round of all managers is free: a leader may have moved.
        count = self._failures - (len(self._managers) - 1)
        if count <= 0:
            return 0.0
        answered = self._unanswered <= len(self._managers)
        limit = FAST_MAX if count <= FAST_TRIES else ANSWERED_MAX if answered else SLOW_MAX
        delay = min(limit, FAST_DELAY * GROWTH ** min(count - 1, 40))
        return delay * self._rng.uniform(0.5, 1.0)

    def failed(self) -> None:
        """It did not answer, or nobody leads: on to the next one."""
        self._failures += 1
        self._unanswered += 1
        if not self._is_hinted:
            self._next += 1

    def redirected(self, address: str) -> None:
        """It said who leads ("": nobody). Counts as a failure, or two managers that each name the other would be asked
        without a pause.

        Of two hints in a row the second is not followed, but the list: a manager whose watch stands still names one
        that led long ago, itself perhaps, and would never be left otherwise."""
        was_hinted = self._is_hinted
        self.failed()
        self._unanswered = 0
        self._hint = "" if was_hinted else address

    def opened(self, address: str) -> None:
        """A session with this one is open: it is the one to come back to."""
        self._failures = self._unanswered = 0
        self._is_hinted = False
        if address in self._managers:
            self._next = self._managers.index(address)
