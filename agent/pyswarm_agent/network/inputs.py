"""What the agent's core and the network part say to each other. `network.node.NodeNetwork` is the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb

# The host end of every task's link, the containers' gateway and name server, and the source of the agent's probes.
GATEWAY = "169.254.1.1"


@dataclass(frozen=True, slots=True)
class NetworkInputs:
    """All that this host's links, routes and rules are derived from.

    Messages are replaced, never changed in place: the same object is taken as unchanged, which is what makes an update
    cost the same however many services there are.
    """

    node_id: str
    node_number: int  # from Welcome; 1…
    nodes: Sequence[wire.NodeAddress]  # all nodes, this one included
    networks: Mapping[str, pb.Network]  # every network with a service, tasks here or not, by id
    endpoints: Mapping[str, ep.ServiceEndpoints]  # all services, by service id
    tasks: Mapping[str, pb.Task]  # of this node, by id, `status` as the agent sees it; until its address is given up
    settled: frozenset[str] = frozenset()  # leaving tasks of this node whose redirect may end
    dead: frozenset[str] = frozenset()  # tasks of this node whose container ended without being told to


@dataclass(frozen=True, slots=True)
class DrainFigures:
    """Of one leaving task. `redirected_at`: unix seconds at which the redirect was in the kernel; 0 = it is not."""

    redirected_at: float
    late_connections: int  # opened to the task after that
    open_connections: int  # now
    resets: int  # since then, either way


class Network(Protocol):
    """What the agent's core calls. Errors: errors.PyswarmError (retryable when the kernel may take it later)."""

    async def start(self) -> None:
        """Looks at what an earlier agent left, and begins to watch for changes by others. Nothing is removed yet."""
        ...

    async def apply(self, inputs: NetworkInputs) -> None:
        """Returns when links, routes and rules are in the kernel: then the revision may be acknowledged."""
        ...

    async def task_died(self, task_id: str) -> None:
        """At once, before the manager knows: redirects new connections, resets the others. Also add it to `dead`."""
        ...

    async def release(self, task_id: str) -> None:
        """The task may be stopped: its UDP flows are cut off from it, so that they move to a live endpoint."""
        ...

    async def drained(self, task_id: str) -> bool:
        """No open TCP connection to it in two samples 50 ms apart; the agent's own probes do not count."""
        ...

    async def drain_figures(self, task_id: str) -> DrainFigures: ...

    async def stop(self) -> None:
        """Ends watchers and child processes. Links, routes, rules and traffic stay."""
        ...

    async def purge(self) -> None:
        """Removes from the kernel everything that is pyswarm's, and nothing else: links, routes, rules, tables."""
        ...
