"""Counts, CPUs, ratios and sizes, each with its range."""

from __future__ import annotations

import re

from pyswarm_core.errors import InvalidInput

MAX_REPLICAS = 10_000
LEAST_MEMORY = 6 << 20  # what the manager takes
NANO = 1_000_000_000
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)
_SHIFT = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def whole(text: str, what: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"[+-]?\d{1,30}", text.strip(), re.ASCII):
        raise InvalidInput(f"{what} must be a whole number, not '{text}'")
    value = int(text)
    if not lowest <= value <= highest:
        raise InvalidInput(f"{what} must be between {lowest} and {highest}, not {value}")
    return value


def replicas(text: str) -> int:
    return whole(text, "the number of replicas", 0, MAX_REPLICAS)


def cpus(text: str) -> int:
    """Nano-CPUs; 0 = none."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text.strip(), re.ASCII):
        raise InvalidInput(f"'{text}' is not a number of CPUs; write 0.5 or 2")
    value = round(float(text) * NANO)
    if value > 10_000 * NANO:
        raise InvalidInput(f"'{text}' CPUs are more than any host has")
    if value and value < NANO // 100:
        raise InvalidInput(f"'{text}' CPUs are less than the kernel can count; the least is 0.01")
    return value


def ratio(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text.strip(), re.ASCII) or float(text) > 1:
        raise InvalidInput(f"'{text}' is not a ratio; write a number between 0 and 1")
    return float(text)


def size(text: str) -> int:
    """Bytes. Units are powers of 1024, as in Docker: 64M, 1g, 512KiB; a bare number is bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"'{text}' is not a size; write 64M or 1g")
    unit = 1 << _SHIFT.get((match[2] or "").lower(), 0)
    value = int(match[1]) * unit if match[1].isdigit() else int(float(match[1]) * unit)
    if value >= 1 << 60:
        raise InvalidInput(f"the size '{text}' is more than any host has")
    return value


def memory(text: str) -> int:
    """A size that a container can live in, or 0 for none."""
    value = size(text)
    if 0 < value < LEAST_MEMORY:
        raise InvalidInput(f"'{text}' of memory is too little for any container; the least is 6M")
    return value


def show_size(value: int) -> str:
    """The shortest exact text: 64M, 1g, 1000."""
    for unit, shift in (("g", 30), ("M", 20), ("k", 10)):
        if value and value % (1 << shift) == 0:
            return f"{value >> shift}{unit}"
    return str(value)
