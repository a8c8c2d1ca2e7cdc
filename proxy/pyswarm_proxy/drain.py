"""Which flows count, and when a task is drained. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm_proxy.conntrack import TCP, UDP, Flow

# Seconds between the two samples. One alone may fall between the end of a connection and the start of the client's next
# one that was on its way before the redirect.
SAMPLE_INTERVAL = 0.05

_SYN_SENT, _SYN_RECV, _ESTABLISHED, _FIN_WAIT, _CLOSE_WAIT, _LAST_ACK = 1, 2, 3, 4, 5, 6
# TIME_WAIT and CLOSE are over, and would keep a task for as long as the kernel remembers them.
_OPEN = frozenset({_SYN_RECV, _ESTABLISHED, _FIN_WAIT, _CLOSE_WAIT, _LAST_ACK})


@dataclass(frozen=True, slots=True)
class DrainFigures:
    """What the receipt tells of one task that left. Times in unix seconds, 0 = not yet."""

    redirected_at: float
    late_connections: int
    open_connections: int
    resets: int


def open_connections(flows: Iterable[Flow], probe_source: str) -> int:
    """TCP connections that a client may still use. `probe_source`: the agent's own probes come from there."""
    return sum(flow.proto == TCP and flow.tcp_state in _OPEN and flow.client != probe_source for flow in flows)


def is_drained(first: int, second: int) -> bool:
    """Two samples of `open_connections`, SAMPLE_INTERVAL apart."""
    return first == 0 and second == 0


def unanswered(flows: Iterable[Flow], probe_source: str) -> list[Flow]:
    """Flows that the task has not answered: when it leaves they are forgotten, so that what the client sends again is
    redirected like anything new."""
    return [flow for flow in flows if not flow.replied and flow.client != probe_source]


def half_open(flows: Iterable[Flow]) -> list[Flow]:
    """Flows that no data has passed yet, for a task that died: the client's retransmission connects elsewhere."""
    return [flow for flow in flows if not flow.assured]


def datagrams(flows: Iterable[Flow]) -> list[Flow]:
    return [flow for flow in flows if flow.proto == UDP]
