"""How a container's end reads."""

from __future__ import annotations

import signal

from pyswarm_agent.interfaces import ContainerExit

LAPSED = "stopped because this host has not heard a leader for too long: another may run in its place"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(amount: int) -> str:
    """67108864 → 64.0 MiB."""
    value = float(amount)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{amount} B" if unit == "B" else f"{value:.1f} {unit}"


def ending(end: ContainerExit, memory_limit: int) -> str:
    """Why a container that nobody stopped is over: one clause, to stand as an error."""
    if end.oom:
        if memory_limit:
            return f"killed: it used more than its memory limit of {size(memory_limit)}"
        return "killed: the host ran out of memory"
    if end.code > 128:
        try:
            return f"killed by signal {signal.Signals(end.code - 128).name}"
        except ValueError:
            pass
    return f"exited with code {end.code}"


def signal_name(text: str) -> str:
    """SIGTERM, sigterm, TERM and 15 are all TERM; what is no signal's name stays, for the runtime to refuse."""
    name = text.strip().upper()
    if name.isdigit():
        try:
            name = signal.Signals(int(name)).name
        except ValueError:
            return name
    return name.removeprefix("SIG") or "TERM"
