"""The fuse of one exclusive container: a process of its own that kills it when the permit is over.

    fuse.py PID STARTED PERMIT LOCK

It needs nobody: not the agent, which may be frozen or dead, and not the network. PERMIT is a file with the time, in
seconds since boot, at which the container must be dead; the agent moves that on as long as a leader lets it. Once the
time that this process knows has passed it kills, whatever the file says by then: a host that was frozen with everything
on it must not be saved by an answer that came meanwhile. Holds a lock on LOCK while it lives. Prints "armed" when
nothing can go wrong any more; then the container may be started. Standard library only, and little of it.
"""

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOOK = 0.5  # seconds between two looks at the permit


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read(permit: str, default: float) -> float:
    try:
        with Path(permit).open() as file:
            return float(file.read())
    except (OSError, ValueError):
        return default


def is_it(pid: int, started: str) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[19] == started
    except OSError:
        return False


def waits(now: Callable[[], float], read: Callable[[float], float], until: float) -> Iterator[float]:
    """How long to wait for the container's end, at most, again and again; is through when it must be killed."""
    while (left := until - now()) > 0:
        yield min(LOOK, left)
        if now() < until:
            until = max(until, read(until))


def watch(container: int, permit: str, until: float) -> None:
    for seconds in waits(now, lambda default: read(permit, default), until):
        if select.select([container], [], [], seconds)[0]:
            return
    signal.pidfd_send_signal(container, signal.SIGKILL)


def main(pid: int, started: str, permit: str, lock: str) -> int:
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(1, b"armed\n")  # by an earlier one
        return 0
    try:
        container = os.pidfd_open(pid)
    except ProcessLookupError:
        return 1
    if not is_it(pid, started):
        return 1
    until = read(permit, 0.0)
    if until <= now():
        signal.pidfd_send_signal(container, signal.SIGKILL)
        return 1
    # Nobody's child, so that nobody's end is its own.
    if os.fork():
        os.write(1, b"armed\n")
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    try:
        watch(container, permit, until)
    except ProcessLookupError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]))
