"""What a task without a probe is waited for before it is called RUNNING, and so gets connections. Pure.

A process that runs is not a process that serves: between the two it refuses connections, and one that prints an error
and ends was never anything else. See docs/adr/0009.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

LONGEST = 5.0  # seconds after the start; then it is RUNNING all the same: nothing says that it must listen
SURVIVES = 0.1  # seconds that one of which no port is known has to live
MOST_PORTS = 64  # of an EXPOSEd range: enough to see that it listens

_EXPOSED = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/tcp)?")


@dataclass(frozen=True, slots=True)
class Listens:
    """TCP ports. `every`: on all of them, else one is enough: images EXPOSE what they may listen on, too."""

    ports: tuple[int, ...] = ()
    every: bool = False

    def missing(self, there: Collection[int]) -> tuple[int, ...]:
        """What is still waited for, when the task listens on the ports `there`."""
        if not self.every and any(port in there for port in self.ports):
            return ()
        return tuple(port for port in self.ports if port not in there)

    def until(self, started_at: float) -> float:
        return started_at + (LONGEST if self.ports else SURVIVES)

    def awaited(self) -> str:
        """port 80; ports 80 and 443; one of the ports 80 and 443."""
        return self._named(self.ports, "" if self.every else "one of the ")

    def lacking(self, missing: Sequence[int]) -> str:
        """port 80; ports 80 and 443; any of the ports 80 and 443."""
        return self._named(missing, "" if self.every else "any of the ")

    @staticmethod
    def _named(ports: Sequence[int], which: str) -> str:
        *most, last = (str(port) for port in ports)
        return f"{which}ports {', '.join(most)} and {last}" if most else f"port {last}"


NOTHING = Listens()


def listens_of(task: pb.Task, exposed: Iterable[str]) -> Listens:
    """`exposed`: the image's, like "80/tcp"."""
    published = {p.target for p in (*task.ports, *task.spec.host_ports) if p.protocol == spec.PROTOCOL_TCP and p.target}
    if published:
        return Listens(tuple(sorted(published)), every=True)
    found: set[int] = set()
    for text in exposed:
        if match := _EXPOSED.fullmatch(text.strip()):
            first = int(match[1])
            last = int(match[2] or first)
            found |= {port for port in range(first, min(last, first + MOST_PORTS - 1) + 1) if 0 < port < 65536}
    return Listens(tuple(sorted(found)[:MOST_PORTS]))
