"""Object ids: 25 characters of base 36, as in Swarm; random, or derived so that two parties arrive at the same one."""

from __future__ import annotations

import hashlib
import random

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
LENGTH = 25


def _base36(number: int) -> str:
    digits = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 36)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(rng: random.Random) -> str:
    """A random id. The generator is the caller's (SystemRandom in daemons, seeded in the simulator)."""
    return _base36(rng.randrange(36**LENGTH))


def derived_id(*parts: str) -> str:
    """The same id for the same parts. A task's n-th successor is derived_id("successor", task_id, str(n))."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    return _base36(int.from_bytes(digest, "big") % 36**LENGTH)
